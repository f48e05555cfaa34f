//! The output for the reader: numbered acts, requests, answers and checked claims.
//!
//! Colour appears on a terminal only; a pipe gets plain text. Every `ok` line is printed by [`Console::checked`],
//! which takes the evidence: no claim reaches the screen without having been compared.

use std::fmt::{Debug, Display};
use std::io::{IsTerminal, Write};

use crate::story::Failure;

/// Writes the story to standard output.
#[derive(Debug)]
pub(crate) struct Console {
    colour: bool,
    act: u32,
    claims: u32,
}

impl Console {
    pub(crate) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, act: 0, claims: 0 }
    }

    /// Opens the next numbered act.
    pub(crate) fn act(&mut self, title: impl Display) {
        self.act += 1;
        let number = self.act;
        let title = self.painted("1", format!("{number}. {title}"));
        self.line(format!("\n{title}"));
    }

    /// A sentence of the story.
    pub(crate) fn say(&mut self, text: impl Display) {
        self.line(format!("   {text}"));
    }

    /// Prints the request that was sent.
    pub(crate) fn sent(&mut self, text: impl Display) {
        let arrow = self.painted("36", "->");
        self.line(format!("   {arrow} {text}"));
    }

    /// Prints the answer.
    pub(crate) fn received(&mut self, text: impl Display) {
        let arrow = self.painted("35", "<-");
        self.line(format!("   {arrow} {text}"));
    }

    /// States a claim after comparing what was found with what it needs.
    ///
    /// # Errors
    /// The claim, with both values, when they differ.
    pub(crate) fn checked<T: PartialEq + Debug>(
        &mut self,
        claim: impl Display,
        found: T,
        needed: T,
    ) -> Result<(), Failure> {
        if found != needed {
            return Err(Failure::Claim {
                claim: claim.to_string(),
                found: format!("{found:?}"),
                needed: format!("{needed:?}"),
            });
        }
        self.claims += 1;
        let ok = self.painted("32", "ok");
        self.line(format!("   {ok} {claim}"));
        Ok(())
    }

    /// The number of claims that were checked so far.
    pub(crate) fn claims(&self) -> u32 {
        self.claims
    }

    /// A table with a title, columns as wide as their widest cell.
    pub(crate) fn table(&mut self, title: &str, rows: &[Vec<String>]) {
        self.line(format!("\n   {title}"));
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                rows.iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for (index, row) in rows.iter().enumerate() {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let text = format!("     {}", cells.join("  "));
            let text =
                if index == 0 { self.painted("2", text.trim_end()) } else { text.trim_end().to_owned() };
            self.line(text);
        }
    }

    /// A line on its own.
    pub(crate) fn line(&mut self, text: impl Display) {
        let mut out = std::io::stdout().lock();
        // A reader that closed the pipe has seen enough; the claims are still checked and decide the exit status.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    fn painted(&self, code: &str, text: impl Display) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}
