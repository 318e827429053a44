//! Paths that keep their meaning when the process changes its current directory.

use super::{Config, Listen};
use crate::exit::Exit;
use std::path::{PathBuf, absolute};

impl Config {
    /// Makes the paths absolute that the server opens or removes after it has started. `-d` changes the current directory
    /// to `/`.
    ///
    /// # Errors
    /// When the process has no current directory.
    pub fn make_paths_absolute(&mut self) -> Result<(), Exit> {
        let make_absolute = |path: &mut PathBuf| {
            *path = absolute(&*path).map_err(|error| Exit::system(&path.display().to_string(), error))?;
            Ok(())
        };
        for listen in &mut self.listen {
            if let Listen::Unix { path, .. } = listen {
                make_absolute(path)?;
            }
        }
        let Config { pid_file, memory_file, auth_file, sasl_password_file, tls, .. } = self;
        let tls = [&mut tls.chain, &mut tls.key, &mut tls.authorities];
        let files = [pid_file, memory_file, auth_file, sasl_password_file];
        files.into_iter().chain(tls).flatten().try_for_each(make_absolute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;

    #[test]
    fn relative_files_are_named_from_the_root_before_a_daemon_goes_there() {
        let mut config = Config {
            pid_file: Some("pid".into()),
            memory_file: Some("image".into()),
            listen: vec![Listen::Unix { path: "sub/socket".into(), mask: 0o700 }],
            ..Config::default()
        };
        let here = env::current_dir().expect("there is one");
        config.make_paths_absolute().expect("there is a current directory");
        assert_eq!(config.pid_file, Some(here.join("pid")));
        assert_eq!(config.memory_file, Some(here.join("image")));
        assert_eq!(config.listen, [Listen::Unix { path: here.join("sub/socket"), mask: 0o700 }]);
    }
}
