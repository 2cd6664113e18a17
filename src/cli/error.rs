//! What went wrong, in the words and with the exit code a user meets.

use crate::config::ConfigErrors;
use miette::{GraphicalReportHandler, GraphicalTheme};

/// Exit codes of every command.
pub mod exit {
    pub const DONE: i32 = 0;
    pub const INTERNAL: i32 = 1;
    pub const BAD_INPUT: i32 = 2;
    pub const NOTHING_MATCHED: i32 = 4;
    /// Not all could be done now; the same command goes on.
    pub const RESUMABLE: i32 = 75;
    pub const SOME_FAILED: i32 = 100;
}

/// An error on its way to the terminal.
#[derive(Debug)]
pub enum CliError {
    /// The experiment file or an override.
    Config(ConfigErrors),
    /// Anything else the user can mend.
    Input {
        message: String,
        help: Option<String>,
    },
    NothingMatched {
        message: String,
        help: Option<String>,
    },
    Internal(String),
}

impl CliError {
    pub fn input(message: impl std::fmt::Display, help: impl Into<String>) -> Self {
        Self::Input { message: message.to_string(), help: Some(help.into()) }
    }

    /// The message without colour or help, in a line.
    pub fn message(&self) -> String {
        match self {
            Self::Config(errors) => errors.to_string(),
            Self::Input { message, .. } | Self::NothingMatched { message, .. } | Self::Internal(message) => message.clone(),
        }
    }

    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) | Self::Input { .. } => exit::BAD_INPUT,
            Self::NothingMatched { .. } => exit::NOTHING_MATCHED,
            Self::Internal(_) => exit::INTERNAL,
        }
    }

    /// The message, with colour if the terminal shows it.
    pub fn render(&self, colour: bool) -> String {
        let lines = |message: &str, help: &Option<String>| {
            let (start, end) = if colour { ("\x1b[31merror:\x1b[0m", "\x1b[36mhelp:\x1b[0m") } else { ("error:", "help:") };
            let help = help.as_ref().map(|h| format!("\n  {end} {h}")).unwrap_or_default();
            format!("{start} {message}{help}\n")
        };
        match self {
            Self::Config(errors) => {
                let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
                let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
                let mut out = String::new();
                match handler.render_report(&mut out, errors) {
                    Ok(()) => out,
                    Err(_) => lines(&errors.to_string(), &None),
                }
            }
            Self::Input { message, help } | Self::NothingMatched { message, help } => lines(message, help),
            Self::Internal(message) => lines(message, &None),
        }
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

/// Errors whose cause lies in the user's files or arguments.
macro_rules! input_errors {
    ($($E:ty),+) => { $(impl From<$E> for CliError {
        fn from(error: $E) -> Self {
            Self::Input { message: error.to_string(), help: None }
        }
    })+ };
}

input_errors!(crate::data::DataError, crate::diffusion::ScheduleError, crate::model::ModelError);
