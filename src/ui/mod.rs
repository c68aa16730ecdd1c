//! What a person or a program reads: renderers over events, tables, questions, errors.
//!
//! In text mode standard output carries results (plans, endpoints, tables) and standard error the progress; with
//! `-o json` standard output carries JSON lines, each with a `type`, and nothing else.

pub mod confirm;
pub mod handle;
pub mod json;
pub mod log;
pub mod plain;
pub mod steps;
pub mod style;
pub mod table;
pub mod tty;

pub use confirm::Question;
pub use handle::{Format, Ui};
pub use style::Style;
pub use table::Table;
