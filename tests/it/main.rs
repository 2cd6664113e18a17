//! Tests of the whole: the house's rules, and the program as a user runs it.

mod architecture;
mod commands;
mod evaluate;
mod faults;
mod interruptions;
mod lab;
mod readme;
mod report_command;
mod report_page;
mod report_speed;
mod sampling;
mod store;
mod training;
