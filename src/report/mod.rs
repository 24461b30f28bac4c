//! What people and machines read: sizes, times, tables, JSON. Nothing here prints; nothing asks the system
//! for the time, the time zone or the width of the terminal.

pub mod csv;
pub mod drill;
pub mod exit;
pub mod json;
pub mod ledger;
pub mod left_out;
pub mod progress;
pub mod size;
pub mod status;
pub mod table;
pub mod text;
pub mod time;
pub mod usage;
