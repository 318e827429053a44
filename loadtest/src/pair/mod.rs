//! A pair of servers, baseline and candidate: what `compare` and `scale` share.
//!
//! Reading order: [`figure`] holds figures and outcomes; [`text`] and [`svg`] show them; [`machine`] says where they come
//! from; [`progress`] is the line on the terminal.

pub mod figure;

pub mod svg;
pub mod text;

pub mod machine;
pub mod progress;
