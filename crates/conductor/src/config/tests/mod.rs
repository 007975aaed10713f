//! The loader as a whole: files and variables in, a configuration or a report out.

mod faults;
mod good;
mod schemas;
mod secrecy;
