//! Multipart bodies, without their boundary: a client that builds its request again chooses another.

/// Splits a body at the delimiters of `boundary`; each piece keeps the rest of its delimiter's line.
pub(crate) fn split<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let delimiter = [b"--", boundary].concat();
    let (mut pieces, mut start, mut from) = (Vec::new(), 0, 0);
    while let Some(found) = body[from..].windows(delimiter.len()).position(|window| window == delimiter) {
        let (begin, end) = (from + found, from + found + delimiter.len());
        let begins_line = begin == 0 || body[..begin].ends_with(b"\r\n");
        if begins_line && ends_line(&body[end..]) {
            pieces.push(&body[start..begin]);
            start = end;
            from = end;
        } else {
            from = begin + 1;
        }
    }
    pieces.push(&body[start..]);
    pieces
}

/// Tells whether a delimiter ends where `rest` begins: the last one with two dashes, any other with its line. More text would
/// make it data.
fn ends_line(rest: &[u8]) -> bool {
    let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest.starts_with(b"--") || rest[blank..].starts_with(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(boundary: &str, amount: &str) -> Vec<u8> {
        format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"amount\"\r\n\r\n{amount}\r\n--{boundary}--\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_form_is_the_same_under_another_boundary() {
        let (one, two) = (form("AaB03x", "100"), form("----WebKit7", "100"));
        assert_eq!(split(&one, b"AaB03x"), split(&two, b"----WebKit7"));
        assert_eq!(split(&one, b"AaB03x").len(), 3);
        assert_ne!(split(&one, b"AaB03x"), split(&form("AaB03x", "900"), b"AaB03x"));
    }

    #[test]
    fn text_that_resembles_a_boundary_is_data() {
        for data in ["--AaB03xy", "text --AaB03x", "--AaB03x text", "-- AaB03x"] {
            let body = form("AaB03x", data);
            assert_eq!(split(&body, b"AaB03x").len(), 3, "{data}");
            assert_ne!(split(&body, b"AaB03x"), split(&form("B", &data.replace("AaB03x", "B")), b"B"));
        }
        assert_eq!(split(b"no delimiter", b"B"), [b"no delimiter"]);
        assert_eq!(split(b"", b"B"), [b""]);
    }
}
