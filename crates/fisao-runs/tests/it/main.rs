//! Runs as a program without a terminal makes them: events are collected, errors are told apart by their types.

mod embedded_pair;
mod small_run;
