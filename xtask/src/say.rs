//! Talking to the person at the terminal. The only place of this crate that prints.

/// Prints a line.
#[expect(clippy::print_stdout, reason = "a command's answer belongs on standard output")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints why the command failed.
#[expect(clippy::print_stderr, reason = "a command's complaint belongs on standard error")]
pub(crate) fn error(text: &str) {
    eprintln!("\nerror: {text}");
}
