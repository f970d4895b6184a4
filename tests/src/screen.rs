//! What a suite shows to people.
//!
//! Owns colour and columns for a terminal 110 characters wide; without a terminal, or with NO_COLOR set, the same
//! text is plain. It refuses to decide anything. Separate so that suites read as what they check.

use std::io::IsTerminal;

/// Whether and how to colour.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    colour: bool,
}

/// The few looks that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Titles.
    Bold,
    /// What need not be read.
    Dim,
    /// What is well.
    Good,
    /// What is not.
    Bad,
    /// One of six colours, by number.
    Tint(usize),
}

impl Screen {
    /// For standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// Text in a look.
    #[must_use]
    pub fn paint(self, look: Look, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match look {
            Look::Bold => "1".to_owned(),
            Look::Dim => "2".to_owned(),
            Look::Good => "32".to_owned(),
            Look::Bad => "1;31".to_owned(),
            Look::Tint(number) => format!("3{}", TINTS.get(number % TINTS.len()).unwrap_or(&'6')),
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A line across with a title.
    #[must_use]
    pub fn rule(self, title: &str) -> String {
        let line = "─".repeat(WIDTH.saturating_sub(title.chars().count() + 4));
        format!(
            "{} {} {}",
            self.paint(Look::Dim, "──"),
            self.paint(Look::Bold, title),
            self.paint(Look::Dim, &line)
        )
    }
}

/// One cell: one line of text, exactly `width` characters, cut with an ellipsis.
#[must_use]
pub fn cell(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > width {
        return line.chars().take(width.saturating_sub(1)).chain(['…']).collect();
    }
    format!("{line:<width$}")
}

/// `14:02:33.123`, UTC.
#[must_use]
pub fn clock(at_ns: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(at_ns)).unwrap_or_default();
    time.strftime("%H:%M:%S%.3f").to_string()
}

/// Progress goes to standard error; standard output is the result alone.
pub fn progress(text: &str) {
    eprintln!("  {text}");
}

/// Columns of an ordinary wide terminal.
pub const WIDTH: usize = 110;
const TINTS: [char; 6] = ['6', '3', '5', '4', '2', '1'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_their_width() {
        assert_eq!(cell("a\n  b", 5), "a b  ");
        assert_eq!(cell("abcdefgh", 4), "abc…");
        assert_eq!(clock(1_500_000_000), "00:00:01.500");
        let plain = Screen { colour: false };
        assert_eq!(plain.rule("x").chars().count(), WIDTH);
    }
}
