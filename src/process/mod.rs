//! What a process is to the system that runs it: its log, limits, identity, files, and what its supervisor is told.
//!
//! As memcached does it, so that service files and scripts written for memcached serve: `-d`, `-r`, `-u`, `-P`,
//! `MEMCACHED_PORT_FILENAME`. And what memcached has not, because systemd offers it: `Type=notify`, in [`supervisor`].
//!
//! Wanted differences from memcached: sockets are bound before the process goes to the background and before it gives up
//! root, so that whoever starts it sees that it failed, and ports below 1024 serve; the pid file is removed without `-d`
//! too; relative paths still mean what they meant when `-d` has moved to `/`.

pub mod daemon;
pub mod files;
pub mod limits;
pub mod log;
pub mod supervisor;
pub mod user;
