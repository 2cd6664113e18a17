//! Standard output: a reader that goes away is no error, and tables line up.

use std::io::{IsTerminal, Write};

/// Writes to standard output. If nobody reads any more (`| head`), the program ends quietly; if it cannot be written for
/// another reason, with an error.
pub fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// [`print`], of what need not be text.
pub fn print_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(super::exit::DONE),
        Err(error) => {
            complain(&format!("error: standard output: {error}\n"));
            std::process::exit(super::exit::INTERNAL);
        }
    }
}

/// Writes to standard error; where that is closed there is nobody left to tell.
pub fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether standard error shows colours.
pub fn stderr_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The terminal's width, or 100 where there is none.
pub fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).or_else(console_width).unwrap_or(100).max(20)
}

fn console_width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a valid winsize for the kernel to fill; the call has no other effect.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// `text` in lines within the width, the first after `indent`, the others two further in.
pub fn wrapped(indent: &str, text: &str) -> String {
    let further = format!("{indent}  ");
    let options = textwrap::Options::new(width()).initial_indent(indent).subsequent_indent(if indent.is_empty() { "" } else { &further });
    textwrap::fill(text, options) + "\n"
}

/// Columns of text, numbers to the right.
pub struct Table {
    head: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A heading that starts with `>` makes a right-aligned column.
    pub fn new(head: &[&str]) -> Self {
        Self {
            right: head.iter().map(|h| h.starts_with('>')).collect(),
            head: head.iter().map(|h| h.trim_start_matches('>').to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Takes out those of the named columns that say the same in every row, and returns them as `name value`.
    pub fn take_constant(&mut self, names: &[&str]) -> Vec<String> {
        let mut taken = Vec::new();
        for name in names {
            let Some(c) = self.head.iter().position(|h| h == name) else { continue };
            let Some(value) = self.rows.first().map(|row| row[c].clone()) else { continue };
            if self.rows.iter().all(|row| row[c] == value) {
                self.head.remove(c);
                self.right.remove(c);
                self.rows.iter_mut().for_each(|row| drop(row.remove(c)));
                taken.push(format!("{name} {value}"));
            }
        }
        taken
    }

    /// The table, each line within the width; what does not fit is cut from the last column.
    pub fn render(&self, indent: &str) -> String {
        let columns = self.head.len();
        let widths: Vec<usize> = (0..columns)
            .map(|c| self.rows.iter().map(|r| r[c].chars().count()).chain([self.head[c].chars().count()]).max().unwrap_or(0))
            .collect();
        let limit = width();
        let line = |cells: &[String]| {
            let mut line = indent.to_owned();
            for (c, cell) in cells.iter().enumerate() {
                let pad = " ".repeat(widths[c] - cell.chars().count());
                let last = c + 1 == columns;
                match (self.right[c], last) {
                    (true, _) => line.extend([pad.as_str(), cell]),
                    (false, true) => line.push_str(cell),
                    (false, false) => line.extend([cell.as_str(), &pad]),
                }
                if !last {
                    line.push_str("  ");
                }
            }
            if line.chars().count() > limit {
                line = line.chars().take(limit - 1).chain(['…']).collect();
            }
            line + "\n"
        };
        std::iter::once(line(&self.head)).chain(self.rows.iter().map(|r| line(r))).collect()
    }
}

/// Seconds in words: `42 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// A number in few characters: `0.0123`, `1.2e-7`, `16.51`.
pub fn short(x: f64) -> String {
    if x == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&x.abs()) {
        format!("{x:.2e}")
    } else {
        let digits = (3 - x.abs().log10().floor() as i32).clamp(0, 6) as usize;
        format!("{x:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_numbers_read_well() {
        assert_eq!([0.43, 42.2, 185.0, 7800.0].map(duration), ["0.4 s", "42 s", "3 min 5 s", "2 h 10 min"]);
        assert_eq!([0.0, 0.012_341, 16.5092, 4.0e-8, 740.12].map(short), ["0", "0.01234", "16.51", "4.00e-8", "740.1"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">n", "note"]);
        table.row(vec!["a".into(), "1".into(), "first".into()]);
        table.row(vec!["ᾱ_T".into(), "123".into(), "x".into()]);
        assert_eq!(table.render("  "), "  name    n  note\n  a       1  first\n  ᾱ_T   123  x\n");
    }
}
