//! The rules by which a database reads the text of a statement.

/// A piece of SQL text, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'s> {
    /// A keyword or an unquoted name.
    Word(&'s str),
    /// The end of a statement.
    Semicolon,
    /// A comma.
    Comma,
    /// An opening parenthesis.
    Open,
    /// A closing parenthesis.
    Close,
    /// The sign of an assignment.
    Equals,
}

/// The effects of a statement that outlive it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The remedy for the first thing that the statement would leave to the next borrower of the connection.
    pub(crate) leaves: Option<&'static str>,
    /// The role may be another one up to the end of the transaction.
    pub(crate) role: bool,
    /// The statement may do things that its text does not show.
    pub(crate) opaque: bool,
}

/// The rules of one database.
pub trait Dialect {
    /// The reader of a statement's effects.
    type Effects<'s>: ReadEffects<'s>;

    /// Measures the string, the quoted name, the comment or the sign at the start of `text`, which begins with
    /// `first`.
    fn skip(text: &str, first: char) -> usize;

    /// Measures the string at the start of `text` if the word before it gives it rules of its own; else zero.
    fn skip_string_after(word: &str, text: &str) -> usize;

    /// Tells whether `word` of a CREATE begins a body whose statements end in semicolons too.
    fn begins_body(creates_trigger: bool, after_begin: bool, word: &str) -> bool;
}

/// Reads the pieces of one statement, from left to right.
///
/// It guards against accidents, not against malice: the effects of functions, of triggers and of code in strings are
/// not seen.
pub trait ReadEffects<'s>: Default {
    /// Takes the next piece in.
    fn add(&mut self, piece: Piece<'s>);

    /// Gives the effects of the statement, which is over.
    fn end(self) -> Effects;
}
