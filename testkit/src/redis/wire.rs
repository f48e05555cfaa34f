//! Just enough of the Redis protocol to see whether a server is ready and to make a cluster.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Sends one command on a new connection and gives the reply: a string, a status or a number, as text.
pub(super) fn ask<S: AsRef<str>>(port: u16, command: &[S]) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(encode(command).as_bytes())?;
    decode(&mut BufReader::new(stream))
}

fn encode<S: AsRef<str>>(command: &[S]) -> String {
    let mut request = format!("*{}\r\n", command.len());
    for part in command {
        let part = part.as_ref();
        request.push_str(&format!("${}\r\n{part}\r\n", part.len()));
    }
    request
}

fn decode(reply: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reply.read_line(&mut line)?;
    let line = line.trim_end();
    match line.split_at_checked(1) {
        Some(("+" | ":", text)) => Ok(text.to_owned()),
        Some(("$", length)) => {
            let length = length.parse().map_err(io::Error::other)?;
            let mut text = String::new();
            reply.take(length).read_to_string(&mut text)?;
            Ok(text)
        }
        _ => Err(io::Error::other(format!("Redis answered {line:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_replies_are_what_redis_speaks() {
        assert_eq!(encode(&["GET", "ключ"]), "*2\r\n$3\r\nGET\r\n$8\r\nключ\r\n");
        assert_eq!(decode(&mut "+PONG\r\n".as_bytes()).expect("a status"), "PONG");
        assert_eq!(decode(&mut "$5\r\na\r\nbc\r\n".as_bytes()).expect("a string"), "a\r\nbc");
        assert!(decode(&mut "-LOADING Redis is loading\r\n".as_bytes()).is_err());
        assert!(decode(&mut "".as_bytes()).is_err());
    }
}
