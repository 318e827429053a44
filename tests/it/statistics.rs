//! Statistics for monitors: their names and their order are those of memcached 1.6.45, and their values have the forms
//! that exporters parse.

use crate::server::Server;

/// The names in `stats` with the default configuration. Tools count its 93 lines.
const GENERAL: &str = "pid uptime time version libevent pointer_size rusage_user rusage_system max_connections \
    curr_connections total_connections rejected_connections connection_structures response_obj_oom \
    response_obj_count response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom \
    reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed \
    delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits \
    touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written limit_maxbytes \
    accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields hash_power_level hash_bytes \
    hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues slab_reassign_inline_reclaim \
    slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem slab_reassign_last_busy_status \
    slab_reassign_running slabs_moved lru_crawler_running lru_crawler_starts lru_maintainer_juggles malloc_fails \
    log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent log_watchers unexpected_napi_ids \
    round_robin_fallback bytes curr_items total_items slab_global_page_pool expired_unfetched evicted_unfetched \
    evicted_active evictions reclaimed crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold \
    moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped";

/// The names in `stats settings`, without those of builds with TLS, proxy, disk tier or seccomp.
const SETTINGS: &str = "maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask \
    shutdown_command growth_factor chunk_size num_threads num_threads_per_udp stat_key_prefix detail_enabled \
    reqs_per_event cas_enabled tcp_backlog binding_protocol auth_enabled_sasl auth_enabled_ascii item_size_max \
    maxconns_fast hashpower_init slab_reassign slab_automove slab_automove_ratio slab_automove_window \
    slab_chunk_max lru_crawler lru_crawler_sleep lru_crawler_tocrawl tail_repair_time flush_enabled dump_enabled \
    hash_algorithm lru_maintainer_thread lru_segmented hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor \
    temp_lru temporary_ttl idle_timeout watcher_logbuf_size worker_logbuf_size read_buf_mem_limit track_sizes \
    inline_ascii_response num_napi_ids memory_file client_flags_size";

/// The names in `stats items` for each class with items.
const ITEMS: &str = "number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted \
    evicted_nonzero evicted_time outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched \
    evicted_active crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm \
    moves_within_lru direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp";

/// The names in `stats slabs` for each class with pages.
const SLABS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end \
    get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits";

/// Asks for one kind of statistics and splits its lines into names and values.
fn ask(server: &Server, request: &str) -> Vec<(String, String)> {
    let lines = server.client().ask_list(request);
    let parts = lines.iter().map(|line| {
        let rest = line.strip_prefix("STAT ").unwrap_or_else(|| panic!("not a statistic: {line:?}"));
        let (name, value) = rest.split_once(' ').unwrap_or_else(|| panic!("two spaces are wanted in {line:?}"));
        (name.to_owned(), value.to_owned())
    });
    parts.collect()
}

fn names(statistics: &[(String, String)]) -> Vec<&str> {
    statistics.iter().map(|(name, _)| name.as_str()).collect()
}

fn value<'a>(statistics: &'a [(String, String)], name: &str) -> &'a str {
    let found = statistics.iter().find(|(other, _)| other == name);
    &found.unwrap_or_else(|| panic!("there is no {name}")).1
}

fn words(list: &str) -> Vec<&str> {
    list.split_whitespace().collect()
}

/// Splits `1:name` or `items:1:name` into class and field. `None` if the name has no class.
fn without_class(name: &str) -> Option<(u32, &str)> {
    let name = name.strip_prefix("items:").unwrap_or(name);
    let (class, field) = name.split_once(':')?;
    Some((class.parse().ok()?, field))
}

#[test]
fn the_general_ones_have_their_names_and_order() {
    assert_eq!(words(GENERAL).len(), 93);
    for workers in ["1", "4"] {
        let server = Server::corecached(&["-t", workers, "-m", "256"]);
        let statistics = ask(&server, "stats");
        assert_eq!(names(&statistics), words(GENERAL));
        assert_eq!(value(&statistics, "threads"), workers);
    }
}

#[test]
fn an_idle_timeout_adds_a_line() {
    let server = Server::corecached(&["-o", "idle_timeout=100"]);
    let statistics = ask(&server, "stats");
    let names = names(&statistics);
    let at = names.iter().position(|name| *name == "idle_kicks").expect("idle_kicks");
    assert_eq!((names[at - 1], names[at + 1]), ("auth_errors", "bytes_read"));
}

#[test]
fn their_values_have_the_shapes_that_tools_parse() {
    let server = Server::corecached(&["-t", "2", "-c", "200", "-m", "100"]);
    let statistics = ask(&server, "stats");
    for (name, value) in &statistics {
        assert!(!value.contains(' '), "{name} {value}: a space");
        assert!(!name.contains("END") && !value.contains("END"), "{name} {value}: some stop reading at END");
        match name.as_str() {
            "version" => {
                let numbers: Vec<u8> = value.split('.').filter_map(|number| number.parse().ok()).collect();
                assert!(matches!(numbers[..], [1, 6, _]), "version {value}: three numbers of a byte each");
            }
            "rusage_user" | "rusage_system" => {
                let (seconds, micros) = value.split_once('.').unwrap_or_else(|| panic!("{name} {value}"));
                assert!(seconds.parse::<u64>().is_ok() && micros.len() == 6, "{name} {value}");
                assert!(micros.parse::<u64>().is_ok(), "{name} {value}");
            }
            "libevent" | "slab_reassign_last_busy_status" => assert!(!value.is_empty(), "{name}"),
            _ => assert!(value.parse::<u64>().is_ok(), "{name} {value}: not a number"),
        }
    }
    assert_eq!(value(&statistics, "pid"), server.pid().to_string());
    assert_eq!(value(&statistics, "max_connections"), "200");
    assert_eq!(value(&statistics, "limit_maxbytes"), (100 << 20).to_string());
    assert_eq!(value(&statistics, "pointer_size"), "64");
    // The server counts this connection. It may still count the one that checked whether the server listens.
    assert!(matches!(value(&statistics, "curr_connections"), "1" | "2"));
    assert!(value(&statistics, "uptime").parse::<u64>().expect("a number") >= 1, "tools divide by uptime");
    let length: usize = statistics.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    assert!(length < 4096, "{length} bytes: collectd reads no more than 4096");
}

#[test]
fn the_settings_have_their_names_and_order() {
    let server =
        Server::corecached(&["-t", "3", "-m", "256", "-c", "200", "-D", "/", "-R", "40", "-o", "hashpower=20"]);
    let statistics = ask(&server, "stats settings");
    let of_other_builds = |name: &str| {
        ["ext_", "ssl_", "proxy_"].iter().any(|group| name.starts_with(group)) || name == "drop_privileges"
    };
    let names: Vec<&str> = names(&statistics)
        .into_iter()
        .filter(|name| !of_other_builds(name) && *name != "slab_automove_freeratio")
        .collect();
    // Statistics of our own may follow memcached's.
    assert_eq!(names[..words(SETTINGS).len().min(names.len())], words(SETTINGS));
    for (name, wanted) in [
        ("maxbytes", "268435456"),
        ("maxconns", "200"),
        ("num_threads", "3"),
        ("stat_key_prefix", "/"),
        ("detail_enabled", "yes"),
        ("reqs_per_event", "40"),
        ("hashpower_init", "20"),
        ("evictions", "on"),
        ("growth_factor", "1.25"),
        ("chunk_size", "48"),
        ("cas_enabled", "yes"),
        ("binding_protocol", "auto-negotiate"),
        ("item_size_max", "1048576"),
        ("flush_enabled", "yes"),
        ("lru_crawler", "yes"),
        ("lru_maintainer_thread", "yes"),
        ("lru_segmented", "yes"),
        ("client_flags_size", "4"),
    ] {
        assert_eq!(value(&statistics, name), wanted, "{name}");
    }
    assert!(value(&statistics, "domain_socket").ends_with("/socket"));
}

#[test]
fn items_and_slabs_speak_of_the_same_classes() {
    for workers in ["1", "4"] {
        let server = Server::corecached(&["-t", workers, "-m", "256"]);
        let mut client = server.client();
        for i in 0..10 {
            assert_eq!(client.ask(&format!("set small{i} 0 0 10\r\n0123456789")), "STORED");
            assert_eq!(client.ask(&format!("set large{i} 0 0 5000\r\n{}", "x".repeat(5000))), "STORED");
        }
        client.send("get small1\r\n");
        client.expect("VALUE small1 0 10\r\n0123456789\r\nEND\r\n");

        let items = ask(&server, "stats items");
        let slabs = ask(&server, "stats slabs");
        let item_classes = check_classes(&items, &words(ITEMS));
        let slab_classes = check_classes(&slabs, &words(SLABS));
        assert_eq!(item_classes.len(), 2, "{items:#?}");
        assert!(item_classes.iter().all(|class| slab_classes.contains(class)), "{item_classes:?} {slab_classes:?}");
        let tail: Vec<&str> = names(&slabs).into_iter().filter(|name| without_class(name).is_none()).collect();
        assert_eq!(tail, ["active_slabs", "total_malloced"]);
        assert_eq!(value(&slabs, "active_slabs"), slab_classes.len().to_string());

        let sum = |statistics: &[(String, String)], field: &str| -> u64 {
            let of_field = statistics.iter().filter(|(name, _)| without_class(name).is_some_and(|(_, it)| it == field));
            of_field.map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
        };
        assert_eq!(sum(&items, "number"), 20);
        assert_eq!(sum(&slabs, "used_chunks"), 20);
        assert_eq!(sum(&slabs, "cmd_set"), 20);
        assert_eq!(sum(&slabs, "get_hits"), 1);
        assert_eq!(sum(&items, "number_hot") + sum(&items, "number_warm") + sum(&items, "number_cold"), 20);
    }
}

/// Checks that every class has exactly these fields, in this order, and that their values are numbers. Returns the
/// classes.
fn check_classes(statistics: &[(String, String)], fields: &[&str]) -> Vec<u32> {
    let mut classes: Vec<u32> = Vec::new();
    let mut of_class: Vec<(u32, Vec<&str>)> = Vec::new();
    for (name, value) in statistics {
        let Some((class, field)) = without_class(name) else { continue };
        assert!(value.parse::<u64>().is_ok(), "{name} {value}: not a number");
        if classes.last() != Some(&class) {
            classes.push(class);
            of_class.push((class, Vec::new()));
        }
        // The server prints this field only if the temporary segment is in use.
        if field != "number_temp" {
            of_class.last_mut().expect("just pushed").1.push(field);
        }
    }
    for (class, got) in of_class {
        assert_eq!(got, fields, "class {class}");
    }
    assert!(classes.is_sorted(), "{classes:?}");
    classes
}

#[test]
fn an_empty_cache_has_no_items() {
    let server = Server::corecached(&["-t", "2", "-m", "256"]);
    assert!(ask(&server, "stats items").is_empty());
}

#[test]
fn connections_are_described() {
    let server = Server::corecached(&["-t", "2", "-m", "256"]);
    let mut other = server.client();
    assert_eq!(other.ask("mn"), "MN");
    let statistics = ask(&server, "stats conns");
    let count = |field: &str, wanted: &str| {
        let matching = |(name, value): &&(String, String)| name.ends_with(field) && value.contains(wanted);
        statistics.iter().filter(matching).count()
    };
    assert_eq!(count(":state", "conn_listening"), 1, "{statistics:#?}");
    assert!(count(":state", "conn_") >= 3, "{statistics:#?}");
    assert!(count(":addr", "unix:") >= 1, "{statistics:#?}");
    assert!(count(":secs_since_last_cmd", "") >= 3, "{statistics:#?}");
}

#[test]
fn counters_of_all_workers_are_summed() {
    let server = Server::corecached_tcp(&["-t", "4", "-m", "256"]);
    for i in 0..40 {
        let mut client = server.client();
        client.send(format!("set key{i} 0 0 1\r\nx\r\nget key{i}\r\nget nothing{i}\r\ndelete nothing\r\n"));
        client.expect(format!("STORED\r\nVALUE key{i} 0 1\r\nx\r\nEND\r\nEND\r\nNOT_FOUND\r\n"));
    }
    let mut client = server.client();
    for (name, wanted) in [
        ("cmd_set", 40),
        ("cmd_get", 80),
        ("get_hits", 40),
        ("get_misses", 40),
        ("delete_misses", 40),
        ("curr_items", 40),
        ("total_items", 40),
    ] {
        assert_eq!(client.stat(name), wanted, "{name}");
    }
    assert!(client.stat("total_connections") >= 41);
    assert!(client.stat("bytes_read") > 40 * 50);
    assert!(client.stat("bytes_written") > 40 * 50);
}
