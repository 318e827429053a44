//! A pair of servers, baseline and candidate: what `compare` and `scale` share.
//!
//! Reading order: [`flags`] go to both servers; [`mod@measure`] makes samples of [`figure`]s, which make outcomes; [`text`]
//! and [`svg`] show them, and [`files`] takes them; [`machine`] says where they come from; [`progress`] is the line on the
//! terminal.

pub mod figure;
pub mod flags;
pub mod measure;

pub mod files;
pub mod svg;
pub mod text;

pub mod machine;
pub mod progress;
