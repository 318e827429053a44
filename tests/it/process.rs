//! Scripts, service files and test suites rely on how a process called `memcached` behaves: on its messages, its exit
//! codes, its files, its user, and its reports to a supervisor.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::client::Client;
use crate::peers;
use crate::server::{Address, CORECACHED, Program, Server, is_root, new_folder};
use crate::waiting::{PATIENCE, wait_until};

/// A user that exists on every system and owns nothing.
const NOBODY: &str = "nobody";

/// A folder and the processes that a test starts in it. Dropping it ends the processes and removes the folder. After
/// `-d`, a server is no longer a child of the test.
struct Scene {
    folder: PathBuf,
    pids: Vec<u32>,
}

impl Scene {
    fn new() -> Scene {
        Scene { folder: new_folder(), pids: Vec::new() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A link named `memcached` to the program under test.
    fn memcached(&self) -> PathBuf {
        let link = self.file("memcached");
        if !link.exists() {
            symlink(CORECACHED, &link).expect("a link in a folder of ours");
        }
        link
    }

    /// Starts a program that writes its ports to the file `ports`, and waits until that file exists.
    fn start(&mut self, program: &Path, flags: &[&str]) {
        let ports = self.file("ports");
        let printed = fs::File::create(self.file("printed")).expect("a file in a folder of ours");
        let mut command = Command::new(program);
        command.args(flags).env("MEMCACHED_PORT_FILENAME", &ports).current_dir(&self.folder).stdin(Stdio::null());
        command.stdout(printed.try_clone().expect("a second handle")).stderr(printed);
        let mut child = command.spawn().expect("it is there");
        let daemon = flags.contains(&"-d");
        if daemon {
            let status = child.wait().expect("a child of ours");
            assert!(status.success(), "{flags:?}: {status}; it printed {}", self.printed());
        } else {
            self.pids.push(child.id());
            // A thread reaps the child when it ends, because a zombie would look alive.
            std::thread::spawn(move || child.wait());
        }
        wait_until("it has written its ports", || ports.exists());
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.file("printed")).unwrap_or_default()
    }

    /// A client of the first TCP port in the port file.
    fn client(&self) -> Client {
        let ports = fs::read_to_string(self.file("ports")).expect("it was written");
        let port = ports.lines().find_map(|line| line.strip_prefix("TCP INET: ")).expect("a port");
        let port: u16 = port.parse().expect("a number");
        Client::connect(&Address::Tcp((Ipv4Addr::LOCALHOST, port).into()))
    }

    /// The process that a pid file names.
    fn pid_in(&mut self, name: &str) -> u32 {
        let path = self.file(name);
        wait_until("there is a pid file", || path.exists());
        let text = fs::read_to_string(path).expect("it is there");
        let pid = text.strip_suffix('\n').and_then(|pid| pid.parse().ok());
        let pid = pid.unwrap_or_else(|| panic!("a number and a line feed: {text:?}"));
        self.pids.push(pid);
        pid
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for &pid in self.pids.iter().filter(|&&pid| is_alive(pid)) {
            kill("KILL", pid);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn kill(signal: &str, pid: u32) {
    let _ = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The value of a line in `/proc/PID/FILE`.
fn of_process(pid: u32, file: &str, line: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("of a living process");
    let found = text.lines().find_map(|it| it.strip_prefix(line));
    found.unwrap_or_else(|| panic!("no line {line} in\n{text}")).trim().to_owned()
}

/// Runs a command that ends by itself.
fn run(program: &Path, flags: &[&str]) -> Output {
    let child = Command::new(program)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is there");
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_name_memcached_makes_it_say_so_where_versions_are_read() {
    let scene = Scene::new();
    for flag in ["-V", "--version", "-h", "--help", "-i", "--license"] {
        let output = run(&scene.memcached(), &[flag]);
        assert!(output.status.success() && output.stderr.is_empty(), "{flag}");
        let printed = text(&output.stdout);
        // dalli's suite reads the version in this way: `memcached -h | head -1`, the last word, three numbers.
        let version = printed.lines().next().and_then(|line| line.strip_prefix("memcached ")).expect("its first line");
        assert_eq!(version.split('.').filter(|number| number.parse::<u8>().is_ok()).count(), 3, "{flag}: {version}");
        if flag == "-V" {
            assert_eq!(printed, format!("memcached {version}\n"), "the whole output is one line");
        }
    }
    let output = run(Path::new(CORECACHED), &["-V"]);
    let printed = text(&output.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    let [first, second] = lines[..] else { panic!("{printed}") };
    assert_eq!(first, format!("corecached {} (memcached 1.6.45 protocol)", env!("CARGO_PKG_VERSION")));
    let commit = second.strip_prefix("commit ").unwrap_or_default();
    let is_commit = commit.len() == 12 && commit.bytes().all(|letter| letter.is_ascii_hexdigit());
    assert!(is_commit || commit == "unknown" || std::env::var("CORECACHED_COMMIT").is_ok(), "{second}");
}

#[test]
fn mistakes_end_it_with_memcacheds_codes_and_words() {
    let scene = Scene::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    for (flags, code, first_line) in [
        (&["-Q"][..], 1, "memcached: invalid option -- 'Q'"),
        (&["--nosuch"], 1, "memcached: unrecognized option '--nosuch'"),
        (&["-p"], 1, "memcached: option requires an argument -- 'p'"),
        (&["--port"], 1, "memcached: option '--port' requires an argument"),
        (&["-t", "0"], 1, "Number of threads must be greater than 0"),
        (&["-c", "0"], 1, "Maximum connections must be greater than 0"),
        (&["-R", "0"], 1, "Number of requests per event must be greater than 0"),
        (&["-f", "1"], 1, "Factor must be greater than 1"),
        (&["-o", "nosuch"], 1, "Illegal suboption \"nosuch\""),
        (&["-p", "70000"], 64, "ERROR: Invalid port number 70000."),
        (&["-U", "70000"], 64, "ERROR: Invalid port number 70000."),
        (&["-B", "x"], 64, "Invalid value for binding protocol: x"),
        (&["-l", "127.0.0.1", "-p", &port], 71, ""),
        (&["-c", "1000000000"], 71, "failed to set rlimit for open files."),
    ] {
        let flags = [&["-u", "root"], flags].concat();
        let ours = run(&scene.memcached(), &flags);
        let peer = peers::has_memcached().then(|| run(Path::new("memcached"), &flags));
        for (who, output) in [("ours", Some(ours)), ("memcached", peer)] {
            let Some(output) = output else { continue };
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{who} {flags:?}: {said}");
            let first = said.lines().next().unwrap_or_default();
            assert!(first.starts_with(first_line) && !first.is_empty(), "{who} {flags:?}: {said}");
            assert!(output.stdout.is_empty(), "{who} {flags:?}");
        }
    }
    if is_root() {
        let ours = run(&scene.memcached(), &["-u", "nosuchuser", "-p", "-1"]);
        assert_eq!(
            (ours.status.code(), text(&ours.stderr).trim()),
            (Some(67), "can't find the user nosuchuser to switch to")
        );
    }
}

#[test]
fn test_suites_that_start_a_memcached_are_served() {
    // The suites of libmemcached, dalli, pylibmc and memcache and the service files of Debian and Fedora use these
    // flags.
    for flags in [
        &["-u", "root", "-l", "localhost", "-m", "128", "-M"][..],
        &["-u", "root", "-l", "127.0.0.1", "-m", "1024", "-c", "1024", "-v", "-U", "0"],
        &["-v", "-t", "4", "-I", "4m", "-o", "modern,drop_privileges"],
        &["-m", "64", "-o", "no_lru_crawler,no_lru_maintainer", "--port=-1"],
        &["-A", "-o", "relaxed_privileges", "--listen=127.0.0.1", "--conn-limit=50", "--disable-cas"],
    ] {
        let mut scene = Scene::new();
        let link = scene.memcached();
        scene.start(&link, &[&["-p", "-1"], flags].concat());
        let mut client = scene.client();
        assert_eq!(client.ask("version"), "VERSION 1.6.45");
        assert_eq!(client.ask("set a 0 0 1\r\nx"), "STORED");
    }
    let mut scene = Scene::new();
    let link = scene.memcached();
    let socket = scene.file("socket");
    // With a Unix socket the server has no ports. corecached then writes an empty file; memcached writes none.
    scene.start(&link, &["-u", "root", "-s", &socket.display().to_string(), "-a", "0766", "-v"]);
    let mut client = Client::connect(&Address::Unix(socket.clone()));
    assert_eq!(client.ask("version"), "VERSION 1.6.45");
    assert_eq!(fs::metadata(socket).expect("the socket").mode() & 0o777, 0o766);
}

#[test]
fn the_port_file_has_memcacheds_lines() {
    let lines = |program: &Path, more: &[&str]| {
        let mut scene = Scene::new();
        scene.start(program, &[&["-u", "root", "-p", "-1", "-t", "2"], more].concat());
        let text = fs::read_to_string(scene.file("ports")).expect("it was written");
        text.lines().map(|line| line.trim_end_matches(|it: char| it.is_ascii_digit()).to_owned()).collect::<Vec<_>>()
    };
    if TcpListener::bind(("::1", 0)).is_err() {
        return peers::say_skipped("there is no IPv6 here");
    }
    for (more, wanted) in [
        (&["-l", "127.0.0.1,::1"][..], &["TCP INET: ", "TCP INET6: "][..]),
        (&["-l", "127.0.0.1", "-U", "-1"], &["TCP INET: ", "UDP INET: "]),
        (&["-l", "127.0.0.1,::1", "-U", "-1"], &["TCP INET: ", "TCP INET6: ", "UDP INET: ", "UDP INET6: "]),
    ] {
        assert_eq!(lines(Path::new(CORECACHED), more), wanted);
        if peers::has_memcached() {
            assert_eq!(lines(Path::new("memcached"), more), wanted);
        }
    }
}

#[test]
fn a_daemon_leaves_its_starter_and_its_pid_file_goes_with_it() {
    for (more, folder) in [(&[][..], None), (&["-r"][..], Some(()))] {
        let mut scene = Scene::new();
        // The path is relative. The server must resolve it in the folder that it was started in.
        let flags = [&["-d", "-P", "pid", "-p", "-1", "-l", "127.0.0.1", "-t", "2", "-u", "root"], more].concat();
        scene.start(Path::new(CORECACHED), &flags);
        let pid = scene.pid_in("pid");
        let mut client = scene.client();
        assert_eq!(client.stat("pid"), u64::from(pid));
        assert_ne!(pid, std::process::id());
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).expect("of a living process");
        let expected = folder.map_or(PathBuf::from("/"), |()| fs::canonicalize(&scene.folder).expect("it is there"));
        assert_eq!(cwd, expected);
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/2")).expect("it has one"), PathBuf::from("/dev/null"));
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).expect("of a living process");
        let session = status.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(3)).expect("the sixth field");
        assert_ne!(session, "0");
        assert_ne!(session, of_process(std::process::id(), "status", "NSsid:"), "a session of its own");
        assert!(!scene.file("pid.tmp").exists());

        kill("TERM", pid);
        client.expect_closed();
        wait_until("it has ended", || !is_alive(pid));
        assert!(!scene.file("pid").exists(), "the pid file is still there");
    }
}

#[test]
fn a_daemon_that_cannot_listen_says_so_before_it_goes() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("it is bound").port();
    let output = run(Path::new(CORECACHED), &["-d", "-l", "127.0.0.1", "-p", &port.to_string(), "-u", "root"]);
    assert_eq!(output.status.code(), Some(71));
    assert!(text(&output.stderr).starts_with("failed to listen on 127.0.0.1"), "{}", text(&output.stderr));
}

#[test]
fn a_pid_file_that_cannot_be_written_keeps_nobody_from_being_served() {
    for program in [Path::new(CORECACHED), Path::new("memcached")] {
        if program == Path::new("memcached") && !peers::has_memcached() {
            continue;
        }
        let mut scene = Scene::new();
        scene.start(program, &["-u", "root", "-p", "-1", "-l", "127.0.0.1", "-P", "/nonexistent/pid"]);
        assert!(scene.client().ask("version").starts_with("VERSION "));
        wait_until("it has said so", || {
            scene.printed().contains("Could not open the pid file /nonexistent/pid.tmp for writing")
        });
    }
}

#[test]
fn a_pid_file_of_the_living_is_warned_of_and_taken() {
    let mut scene = Scene::new();
    fs::write(scene.file("pid"), format!("{}\n", std::process::id())).expect("a file in a folder of ours");
    let path = scene.file("pid").display().to_string();
    scene.start(Path::new(CORECACHED), &["-u", "root", "-p", "-1", "-P", &path]);
    let warning = format!("The pid file contained the following (running) pid: {}", std::process::id());
    wait_until("it has said so", || scene.printed().contains(&warning));
    let pid = scene.pids[0];
    wait_until("it is taken", || fs::read_to_string(&path).is_ok_and(|text| text == format!("{pid}\n")));
}

#[test]
fn root_becomes_who_it_is_told_to_be() {
    if !is_root() {
        return peers::say_skipped("only root can become somebody else");
    }
    let mut scene = Scene::new();
    // A folder that belongs to the user. The packages of memcached put their files into such a folder.
    let place = scene.file("run");
    fs::create_dir(&place).expect("a folder in a folder of ours");
    let chowned = Command::new("chown").arg(NOBODY).arg(&place).status().expect("chown(1) exists");
    assert!(chowned.success());
    let (socket, pid_file) = (place.join("socket"), place.join("pid"));
    let (socket_name, pid_name) = (socket.display().to_string(), pid_file.display().to_string());
    scene.start(
        Path::new(CORECACHED),
        &["-u", NOBODY, "-s", &socket_name, "-a", "0700", "-P", &pid_name, "-r", "-k", "-t", "2"],
    );
    let pid = scene.pid_in("run/pid");
    let mut client = Client::connect(&Address::Unix(socket.clone()));
    assert_eq!(client.ask("set a 0 0 1\r\nx"), "STORED");
    let owner = fs::metadata(&place).expect("it is there").uid();
    assert_ne!(owner, 0);
    let ids = format!("{owner}\t{owner}\t{owner}\t{owner}");
    assert_eq!(of_process(pid, "status", "Uid:"), ids);
    assert_eq!(of_process(pid, "status", "Groups:"), "");
    assert_eq!(of_process(pid, "status", "CapEff:"), "0000000000000000");
    assert_eq!(fs::metadata(&socket).expect("it is bound").uid(), owner, "others of the user may connect");
    // `-r` and `-k` take effect for the new user. `-k` works as far as root could raise the limit.
    let core: Vec<String> =
        of_process(pid, "limits", "Max core file size").split_whitespace().map(str::to_owned).collect();
    assert_ne!(core[0], "0");
    assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).expect("of a living process").uid(), owner, "it may dump core");
    if of_process(pid, "limits", "Max locked memory").starts_with("unlimited") {
        assert_ne!(of_process(pid, "status", "VmLck:"), "0 kB");
    }
    kill("TERM", pid);
    client.expect_closed();
    wait_until("it has ended", || !is_alive(pid));
    assert!(!socket.exists() && !pid_file.exists(), "its files are still there");
}

/// Checks that the log of `-vv` has these lines in this order, and that it contains no values.
fn check_log(program: Program) {
    let mut server = Server::on_tcp(program, &["-vv", "-t", "1"]);
    let mut client = server.client();
    let value = "x".repeat(100_000);
    client.send(format!("set a 0 0 6\r\nsecret\r\nget a b\r\nset large 0 0 100000\r\n{value}\r\nms m 6\r\nsecret\r\n"));
    client.expect("STORED\r\nVALUE a 0 6\r\nsecret\r\nEND\r\nSTORED\r\nHD\r\n");
    client.send("version\r\ndelete a\r\n");
    assert!(client.line().is_ok_and(|line| line.starts_with(b"VERSION")));
    client.expect("DELETED\r\n");
    client.send("bogus\r\nquit\r\n");
    assert!(client.line().is_ok_and(|line| line.starts_with(b"ERROR")));
    client.expect_closed();
    wait_until("the log is written", || server.printed().contains("connection closed."));
    server.signal("TERM");
    assert!(server.wait().success());
    let log = server.printed();
    let mut lines = log.lines();
    // memcached writes the slab classes before the other lines. Another test checks the lines before "server
    // listening".
    assert!(log.contains("slab class   1: chunk size "), "{program:?}:\n{log}");
    for expected in [
        "server listening (auto-negotiate)",
        " new auto-negotiating client connection",
        ": Client using the ascii protocol",
        " set a 0 0 6",
        " get a b",
        " set large 0 0 100000",
        " ms m 6",
        " version",
        " delete a",
        // corecached does not log an unknown command, because it may be a password.
        if program == Program::Corecached { " unknown command, 7 bytes: ERROR" } else { " bogus" },
        " connection closed.",
        "Exiting normally",
    ] {
        assert!(lines.any(|line| line.contains(expected)), "{program:?}: no {expected:?} behind the others in\n{log}");
    }
    assert!(!log.contains("secret") && !log.contains("xxx"), "values are nobody's business:\n{log}");
}

#[test]
fn a_log_has_the_lines_that_are_looked_for_in_memcacheds() {
    check_log(Program::Corecached);
    for program in [Program::Memcached, Program::Newest] {
        if peers::has(program) {
            check_log(program);
        }
    }
}

#[test]
fn a_log_says_where_it_listens_before_the_slab_classes() {
    // Test suites read this many lines before they give up.
    const LINES_READ: usize = 50;
    for flags in [&["-vv"][..], &["-vv", "-f", "1.02"], &["-vv", "-t", "8", "-U", "-1"]] {
        let server = Server::on_tcp(Program::Corecached, flags);
        server.client().ask("mn");
        let log = server.printed();
        let at = |text: &str| log.lines().position(|line| line.contains(text));
        let (listening, first_class) = (at("server listening (auto-negotiate)"), at("slab class   1: chunk size "));
        assert!(listening < first_class, "{flags:?}:\n{log}");
        assert!(listening.is_some_and(|line| line < LINES_READ), "{flags:?}:\n{log}");
        assert_eq!(at("server listening (udp)").is_some(), flags.contains(&"-U"), "{flags:?}:\n{log}");
    }
}

#[test]
fn a_start_without_an_address_says_that_other_machines_are_not_served() {
    const LINE: &str = ", for this machine only: -l ADDRESS serves others";
    let scene = Scene::new();
    let (link, socket) = (scene.memcached(), scene.file("socket").display().to_string());
    for (program, flags, says_so, udp) in [
        (Path::new(CORECACHED), &["-p", "-1"][..], true, false),
        (&link, &["-p", "-1"], true, false),
        (&link, &["-p", "-1", "-d", "-P", "pid"], true, false),
        (&link, &["-p", "0", "-U", "-1"], true, false),
        (&link, &["-p", "-1", "-l", "127.0.0.1"], false, false),
        (&link, &["-p", "-1", "-l", "127.0.0.1", "-U", "-1"], false, false),
        (&link, &["-s", &socket], false, false),
        (&link, &["-p", "-1", "-l", "0.0.0.0"], false, false),
        (&link, &["-p", "-1", "-l", "0.0.0.0", "-U", "-1"], false, true),
        (&link, &["-p", "-1", "-l", "0.0.0.0", "-U", "-1", "--udp-allow", "127.0.0.1"], false, false),
    ] {
        let mut scene = Scene::new();
        scene.start(program, &[&["-u", "root", "-t", "2"], flags].concat());
        if flags.contains(&"-d") {
            scene.pid_in("pid");
        } else if fs::read_to_string(scene.file("ports")).is_ok_and(|ports| ports.contains("TCP")) {
            // A server that answers has written this line already.
            scene.client().ask("mn");
        }
        // The server writes the port file before the line.
        wait_until("it has said what it says", || !(says_so || udp) || scene.printed().contains('\n'));
        let printed = scene.printed();
        let ports = fs::read_to_string(scene.file("ports")).expect("it was written");
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), usize::from(says_so || udp), "{flags:?}: {printed}");
        for line in lines {
            assert!(!says_so || line.contains(LINE), "{flags:?}: {line}");
            assert!(
                !udp || line.contains("only those of --udp-allow get replies that are longer"),
                "{flags:?}: {line}"
            );
            for port in ports.lines().filter(|port| says_so || port.starts_with("UDP")) {
                let port = port.rsplit(' ').next().expect("a number");
                assert!(line.contains(&format!(":{port}")), "{flags:?}: port {port} in {line}");
            }
        }
    }
}

/// Runs a program with a hard and soft limit of open files.
fn limited(program: &Path, files: u32, flags: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n $0 && exec \"$@\"", &files.to_string()]).arg(program);
    command.args(["-u", "root", "-t", "2", "-l", "127.0.0.1"]).args(flags);
    command
}

#[test]
fn as_many_connections_are_served_as_there_are_descriptors() {
    let newest = peers::has(Program::Newest).then(peers::newest_memcached).flatten();
    for (files, flags, all) in [
        (1024, &[][..], false),
        (1024, &["-c", "1024"], false),
        (1024, &["-c", "900"], true),
        (8192, &["-c", "8192"], false),
        (256, &["-c", "256", "-U", "-1"], false),
        (256, &[], false),
        (64, &[], false),
    ] {
        let wanted: u64 =
            flags.iter().position(|flag| *flag == "-c").map_or(1024, |at| flags[at + 1].parse().unwrap_or(0));
        let mut scene = Scene::new();
        let mut command = limited(Path::new(CORECACHED), files, &[flags, &["-p", "-1"]].concat());
        let printed = fs::File::create(scene.file("printed")).expect("a file in a folder of ours");
        command.env("MEMCACHED_PORT_FILENAME", scene.file("ports")).stdin(Stdio::null()).stderr(printed);
        let mut child = command.spawn().expect("there is a shell");
        scene.pids.push(child.id());
        wait_until("it has written its ports", || {
            assert!(child.try_wait().is_ok_and(|status| status.is_none()), "{files} {flags:?}: {}", scene.printed());
            scene.file("ports").exists()
        });
        let mut first = scene.client();
        let served = first.stat("max_connections");
        let shown = first.ask_list("stats settings");
        assert!(shown.contains(&format!("STAT maxconns {served}")), "{files} {flags:?}: {shown:?}");
        let line =
            format!("the limit of open files is {files}: {served} connections are served at once, not {wanted} (-c");
        assert_eq!(scene.printed().contains(&line), !all, "{files} {flags:?}: {}", scene.printed());
        assert!(if all { served == wanted } else { served < wanted && served + 64 > u64::from(files) }, "{served}");
        if served < 300 {
            // The server serves as many connections as it promised. It refuses one more at once, so that the client
            // does not wait.
            let mut others: Vec<Client> = (1..served).map(|_| scene.client()).collect();
            for client in &mut others {
                assert_eq!(client.ask("mn"), "MN", "{files} {flags:?}");
            }
            assert_eq!(scene.client().line(), Ok(b"ERROR Too many open connections\r\n".to_vec()));
            assert_eq!(first.stat("listen_disabled_num"), 0, "{files} {flags:?}");
        }
    }
    // corecached refuses a `-c` above the limit of open files, as memcached does. Only corecached also refuses a limit
    // that is too low for any connection; its message is its own.
    for (files, flags, words, theirs) in [
        (256, &["-c", "257"][..], "failed to set rlimit for open files.", true),
        (1024, &["-c", "8192"], "failed to set rlimit for open files.", true),
        (20, &[], "the limit of open files is 20: at least ", false),
        (8, &[], "the limit of open files is 8: at least ", false),
    ] {
        let programs = [Some(PathBuf::from(CORECACHED)), newest.clone().filter(|_| theirs)];
        for program in programs.iter().flatten() {
            let output = limited(program, files, &[flags, &["-p", "-1"]].concat()).output().expect("there is a shell");
            let said = text(&output.stderr);
            assert!(output.status.code() == Some(71) && said.starts_with(words), "{files} {flags:?}: {said}");
        }
    }
}

#[test]
fn an_address_in_use_is_left_out_if_there_is_another_one() {
    /// Takes one port of the loopback for TCP and UDP, on either address or on both. The system does not give this port
    /// to another process meanwhile.
    fn taken(v4: bool, v6: bool) -> (Vec<TcpListener>, Vec<UdpSocket>, u16) {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        loop {
            let port = 20_000 + (std::process::id() as u16 + NEXT.fetch_add(7, Ordering::Relaxed)) % 12_000;
            let [four, six] = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(|address| {
                Some((TcpListener::bind((address, port)).ok()?, UdpSocket::bind((address, port)).ok()?))
            });
            if let (Some(four), Some(six)) = (four, six) {
                let (tcp, udp) = [v4.then_some(four), v6.then_some(six)].into_iter().flatten().unzip();
                return (tcp, udp, port);
            }
        }
    }
    if TcpListener::bind(("::1", 0)).is_err() {
        return peers::say_skipped("there is no IPv6 here");
    }
    for (v4, v6) in [(false, true), (true, false), (true, true)] {
        for flags in [&["-p", "PORT"][..], &["-p", "0", "-U", "PORT"], &["-p", "PORT", "-U", "PORT"]] {
            for program in [Program::Corecached, Program::Newest] {
                if !peers::has(program) {
                    continue;
                }
                let (_tcp, _udp, port) = taken(v4, v6);
                let port = port.to_string();
                let flags: Vec<&str> = flags.iter().map(|&flag| if flag == "PORT" { &*port } else { flag }).collect();
                let mut scene = Scene::new();
                let path = match program {
                    Program::Corecached => PathBuf::from(CORECACHED),
                    _ => peers::newest_memcached().expect("it is there"),
                };
                if v4 && v6 {
                    let output = run(&path, &[&["-u", "root"], &flags[..]].concat());
                    let said = text(&output.stderr);
                    assert_eq!(output.status.code(), Some(71), "{program:?} {flags:?}: {said}");
                    assert!(said.starts_with("failed to listen on ") && said.contains("in use"), "{said}");
                    continue;
                }
                scene.start(&path, &[&["-u", "root"], &flags[..]].concat());
                let ports = fs::read_to_string(scene.file("ports")).expect("it was written");
                let sockets = flags.iter().filter(|flag| **flag == port).count();
                assert_eq!(ports.lines().filter(|line| line.ends_with(&port)).count(), sockets, "{program:?}: {ports}");
                if program == Program::Corecached {
                    let missing = if v4 { format!("127.0.0.1:{port}") } else { format!("[::1]:{port}") };
                    let line = format!("{missing} is not listened on: Address already in use");
                    wait_until("it has said so", || scene.printed().matches(&line).count() == sockets);
                }
            }
        }
    }
    // With a port for each worker, the server must get all of these ports.
    let (_tcp, _udp, port) = taken(true, true);
    let below = (port - 1).to_string();
    let output = run(Path::new(CORECACHED), &["-u", "root", "-t", "2", "--port-per-core", "-p", &below]);
    assert_eq!(output.status.code(), Some(71), "{}", text(&output.stderr));
    // The server must get every address that the user names.
    let (_tcp, _udp, port) = taken(false, true);
    let output = run(Path::new(CORECACHED), &["-u", "root", "-l", "127.0.0.1,::1", "-p", &port.to_string()]);
    assert_eq!(output.status.code(), Some(71), "{}", text(&output.stderr));
}

/// The socket of a supervisor, which receives the messages of a server.
struct Supervisor {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Supervisor {
    fn new(scene: &Scene) -> Supervisor {
        let path = scene.file("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket in a folder of ours");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        Supervisor { path, socket }
    }

    fn next(&self) -> String {
        self.try_next().expect("a datagram")
    }

    fn try_next(&self) -> std::io::Result<String> {
        let mut buffer = [0; 200];
        loop {
            match self.socket.recv(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                received => {
                    let message = text(&buffer[..received?]);
                    // Other tests look at what is stored.
                    if !message.starts_with("FDSTORE=1\n") {
                        return Ok(message);
                    }
                }
            }
        }
    }

    /// Starts a server under this supervisor, on the socket `socket` of the scene.
    fn start(&self, scene: &mut Scene, flags: &[&str], environment: &[(&str, &str)], stderr: Stdio) -> Child {
        let child = Command::new(CORECACHED)
            .args(["-u", "root", "-s"])
            .arg(scene.file("socket"))
            .args(flags)
            .env("NOTIFY_SOCKET", &self.path)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("it is there");
        scene.pids.push(child.id());
        child
    }
}

#[test]
fn a_supervisor_is_told_when_it_serves_and_when_it_stops() {
    let mut scene = Scene::new();
    let supervisor = Supervisor::new(&scene);
    // The server does not report to a watchdog that is meant for another process.
    let environment = [("WATCHDOG_USEC", "400000"), ("WATCHDOG_PID", "1")];
    let mut child = supervisor.start(&mut scene, &["-t", "2"], &environment, Stdio::null());
    assert_eq!(supervisor.next(), format!("READY=1\nMAINPID={}\nSTATUS=serving", child.id()));
    // A server that reports that it is ready answers the first client.
    assert_eq!(Client::connect(&Address::Unix(scene.file("socket"))).ask("mn"), "MN");
    kill("TERM", child.id());
    assert_eq!(supervisor.next(), "STOPPING=1\nSTATUS=stopping");
    assert!(ended(&mut child).success());
}

#[test]
fn a_supervisor_waits_while_the_cache_is_written_and_loaded() {
    let mut scene = Scene::new();
    let supervisor = Supervisor::new(&scene);
    let image = scene.file("image").display().to_string();
    for round in 0..2 {
        let mut child = supervisor.start(&mut scene, &["-t", "2", "-e", &image], &[], Stdio::null());
        if round > 0 {
            let waits = supervisor.next();
            assert!(waits.starts_with("EXTEND_TIMEOUT_USEC=300000000\nSTATUS=loading the cache, "), "{waits}");
        }
        assert_eq!(supervisor.next(), format!("READY=1\nMAINPID={}\nSTATUS=serving", child.id()));
        let mut client = Client::connect(&Address::Unix(scene.file("socket")));
        match round {
            0 => assert_eq!(client.ask("set a 0 0 1\r\nx"), "STORED"),
            _ => assert_eq!(client.ask("mg a v"), "VA 1"),
        }
        kill("USR1", child.id());
        assert_eq!(supervisor.next(), "STOPPING=1\nSTATUS=stopping");
        let waits = supervisor.next();
        assert!(waits.starts_with("EXTEND_TIMEOUT_USEC=300000000\nSTATUS=writing the cache, "), "{waits}");
        assert!(ended(&mut child).success());
    }
}

#[test]
fn a_watchdog_hears_of_it_when_a_worker_hangs_and_when_it_goes_on() {
    let mut scene = Scene::new();
    let supervisor = Supervisor::new(&scene);
    // The server must report to the watchdog every 500 ms. Nobody reads its log.
    let environment = [("WATCHDOG_USEC", "2000000")];
    let mut child = supervisor.start(&mut scene, &["-t", "2", "-vv"], &environment, Stdio::piped());
    assert_eq!(supervisor.next(), format!("READY=1\nMAINPID={}\nSTATUS=serving", child.id()));
    // On a busy machine a worker may be late. The server then leaves out a report.
    for _ in 0..3 {
        wait_until("it is fed", || supervisor.next().starts_with("WATCHDOG=1"));
    }
    // Make the server log until the pipe is full. The worker that writes the log then waits for a reader.
    supervisor.socket.set_nonblocking(true).expect("a socket of ours");
    let mut told = String::new();
    wait_until("a worker hangs", || {
        drop(UnixStream::connect(scene.file("socket")));
        told = supervisor.try_next().unwrap_or_default();
        told.starts_with("STATUS=")
    });
    assert!(["STATUS=worker 0 does not answer", "STATUS=worker 1 does not answer"].contains(&&*told), "{told}");
    let mut log = child.stderr.take().expect("it is a pipe");
    let read = std::thread::spawn(move || {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut log, &mut text).map(|_| text)
    });
    // The supervisor got no report in between: the server did not report while the worker hung.
    supervisor.socket.set_nonblocking(false).expect("a socket of ours");
    assert_eq!(supervisor.next(), "WATCHDOG=1\nSTATUS=serving");
    kill("TERM", child.id());
    wait_until("it stops", || supervisor.next().starts_with("STOPPING=1"));
    assert!(ended(&mut child).success());
    let log = read.join().expect("a thread of the test").expect("a pipe can be read");
    assert!(text(&log).contains(" does not answer: the watchdog is not told that all is well"));
}

fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until("it has ended", || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    });
    status.expect("it has ended")
}

#[test]
fn sockets_that_were_bound_by_another_are_served() {
    let mut scene = Scene::new();
    let path = scene.file("socket");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address: SocketAddr = tcp.local_addr().expect("it is bound");
    let unix = UnixListener::bind(&path).expect("a socket in a folder of ours");
    // This client connects before the server starts. It waits in the queue of the socket.
    let mut early = TcpStream::connect(address).expect("it listens");
    early.write_all(b"mn\r\n").expect("there is room");
    // The server gets the sockets as descriptors 3 and 4, as from systemd. The shell gets them as its standard input
    // and output.
    let script = "LISTEN_FDS=2 LISTEN_PID=$$ exec \"$0\" -u root -t 2 -p 1 3<&0 4>&1 </dev/null >/dev/null";
    let mut child = Command::new("sh")
        .args(["-c", script, CORECACHED])
        .stdin(OwnedFd::from(tcp))
        .stdout(OwnedFd::from(unix))
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    scene.pids.push(child.id());
    let mut by_tcp = Client::connect(&Address::Tcp(address));
    assert_eq!(by_tcp.ask("set a 0 0 1\r\nx"), "STORED");
    let mut by_unix = Client::connect(&Address::Unix(path.clone()));
    assert_eq!(by_unix.ask("mg a v"), "VA 1");
    let mut reply = [0; 4];
    early.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    std::io::Read::read_exact(&mut early, &mut reply).expect("a reply");
    assert_eq!(&reply, b"MN\r\n");
    kill("TERM", child.id());
    assert!(ended(&mut child).success());
    assert!(path.exists(), "the file is not the server's to remove");
}
