//! The process as the system sees it: its log, limits, user, files, and its supervisor.
//!
//! The server does here what memcached does, so that service files and scripts written for memcached keep working: `-d`,
//! `-r`, `-u`, `-P`, `MEMCACHED_PORT_FILENAME`. [`supervisor`] adds what memcached lacks: systemd's `Type=notify`.
//! [`handover`] and [`takeover`] bring descriptors from one server to the next.
//!
//! Three differences from memcached are wanted:
//! - The server binds its sockets before it goes to the background and before it gives up root. A script that starts it
//!   sees a failure, and ports below 1024 work.
//! - The server removes the pid file at exit even without `-d`.
//! - Relative paths keep their meaning although `-d` changes the current directory to `/`.

pub mod cgroup;
pub mod daemon;
pub mod files;
pub mod handover;
pub mod huge_pages;
pub mod limits;
pub mod log;
pub mod rights;
pub mod supervisor;
pub mod takeover;
pub mod user;
