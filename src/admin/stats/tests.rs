use super::*;
use crate::admin::cold_items::ColdItems;
use crate::admin::query::Answer;
use crate::admin::tests::Cache;
use crate::clock::NEVER;
use crate::store::moves::Busy;
use crate::store::slab::{ClassId, ClassUse};
use crate::store::stats::{ClassCounters, Counters};
use crate::store::{ClassSnapshot, Snapshot};
use general::{general, micros};
use lists::cold_items;
use nix::sys::time::TimeVal;

/// The names in a reply, in order.
fn names(reply: &str) -> Vec<&str> {
    let lines = reply.strip_suffix("END\r\n").expect("an end").lines();
    lines.map(|line| line.split(' ').nth(1).expect("STAT name value")).collect()
}

#[track_caller]
fn value(reply: &str, name: &str) -> u64 {
    let line = reply.lines().find_map(|line| line.strip_prefix("STAT ")?.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {reply}"))
}

#[track_caller]
fn check_values(reply: &str, expected: &[(&str, u64)]) {
    for &(name, number) in expected {
        assert_eq!(value(reply, name), number, "{name}");
    }
}

/// The names that memcached 1.6.45 prints without options.
const GENERAL: &str = "pid uptime time version libevent pointer_size rusage_user rusage_system max_connections \
    curr_connections total_connections rejected_connections connection_structures response_obj_oom \
    response_obj_count response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom \
    reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed \
    delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval \
    touch_hits touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written \
    limit_maxbytes accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields \
    hash_power_level hash_bytes hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues \
    slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem \
    slab_reassign_last_busy_status slab_reassign_running slabs_moved lru_crawler_running lru_crawler_starts \
    lru_maintainer_juggles malloc_fails log_worker_dropped log_worker_written log_watcher_skipped \
    log_watcher_sent log_watchers unexpected_napi_ids round_robin_fallback bytes curr_items total_items \
    slab_global_page_pool expired_unfetched evicted_unfetched evicted_active evictions reclaimed \
    crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru \
    direct_reclaims lru_bumps_dropped";

const SETTINGS: &str = "maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask \
    shutdown_command growth_factor chunk_size num_threads num_threads_per_udp stat_key_prefix detail_enabled \
    reqs_per_event cas_enabled tcp_backlog binding_protocol auth_enabled_sasl auth_enabled_ascii item_size_max \
    maxconns_fast hashpower_init slab_reassign slab_automove slab_automove_ratio slab_automove_window \
    slab_chunk_max lru_crawler lru_crawler_sleep lru_crawler_tocrawl tail_repair_time flush_enabled dump_enabled \
    hash_algorithm lru_maintainer_thread lru_segmented hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor \
    temp_lru temporary_ttl idle_timeout watcher_logbuf_size worker_logbuf_size read_buf_mem_limit track_sizes \
    inline_ascii_response ssl_enabled ssl_chain_cert ssl_key ssl_verify_mode ssl_keyformat ssl_ciphers ssl_ca_cert \
    ssl_wbuf_size ssl_session_cache ssl_kernel_tls ssl_min_version num_napi_ids memory_file client_flags_size";

#[test]
fn general_has_memcacheds_names_in_its_order() {
    let general: Vec<&str> = GENERAL.split_whitespace().collect();
    assert_eq!(general.len(), 93);
    assert_eq!(names(&Cache::new("").ask("stats")), general);
    let without = |word: &str| general.iter().copied().filter(|name| !name.starts_with(word)).collect::<Vec<_>>();
    assert_eq!(
        names(&Cache::new("-o no_slab_reassign").ask("stats")),
        without("slab_reassign").into_iter().filter(|&name| name != "slabs_moved").collect::<Vec<_>>()
    );
    assert_eq!(names(&Cache::new("-o no_lru_crawler").ask("stats")), without("lru_crawler"));
    assert_eq!(names(&Cache::new("-o no_lru_crawler,no_lru_maintainer").ask("stats")).len(), 84);
    let idle = Cache::new("-o idle_timeout=5").ask("stats");
    assert_eq!(names(&idle)[45..47], ["idle_kicks", "bytes_read"]);
    let mut cache = Cache::new("");
    cache.ask("lru_crawler disable");
    assert_eq!(names(&cache.ask("stats")), without("lru_crawler"));
}

#[test]
fn general_fits_in_the_buffer_of_collectd() {
    const MANY: u64 = u64::MAX / 8;
    let mut cache = Cache::new("-m 16777216 -o idle_timeout=5");
    let class = |id| {
        let counters = ClassCounters {
            hits_to_hot: MANY,
            cmd_set: MANY,
            delete_hits: MANY,
            incr_hits: MANY,
            decr_hits: MANY,
            cas_hits: MANY,
            cas_badval: MANY,
            touch_hits: MANY,
            evicted: MANY,
            evicted_unfetched: MANY,
            evicted_active: MANY,
            expired_unfetched: MANY,
            reclaimed: MANY,
            crawler_reclaimed: MANY,
            crawler_items_checked: MANY,
            moves_to_cold: MANY,
            moves_to_warm: MANY,
            moves_within_lru: MANY,
            direct_reclaims: MANY,
            ..ClassCounters::default()
        };
        ClassSnapshot { id, usage: ClassUse::default(), counters, counts: [0; 4], ages: [0; 4], evicted_age: 0 }
    };
    let counters = Counters {
        cmd_touch: MANY,
        cmd_meta: MANY,
        get_misses: MANY,
        get_expired: MANY,
        get_early: MANY,
        get_flushed: MANY,
        get_prefix_flushed: MANY,
        touch_misses: MANY,
        delete_misses: MANY,
        incr_misses: MANY,
        decr_misses: MANY,
        cas_misses: MANY,
        store_too_large: MANY,
        store_no_memory: MANY,
        total_items: MANY,
        slabs_moved: MANY,
        juggles: MANY,
        reassign_rescues: MANY,
        reassign_chunk_rescues: MANY,
        reassign_inline_reclaim: MANY,
        reassign_busy_items: MANY,
        reassign_busy_deletes: MANY,
        reassign_busy_nomem: MANY,
    };
    let snapshot = Snapshot {
        counters,
        classes: vec![class(ClassId(1))],
        curr_items: MANY,
        bytes: MANY,
        hash_bytes: MANY,
        hash_power: 32,
        hash_is_expanding: true,
        reassign_is_running: true,
        reassign_last_busy: Busy::Uploading,
    };
    for worker in &cache.workers {
        let (read, written) = (&worker.bytes_read, &worker.bytes_written);
        for counter in [read, written, &worker.conn_yields, &worker.idle_kicks, &worker.cmd_flush] {
            counter.set(MANY);
        }
        worker.given_connections.set(MANY);
        worker.buffer_bytes.set(MANY);
    }
    let server = &cache.server;
    for counter in [&server.total_connections, &server.rejected_connections, &server.listen_disabled_num] {
        counter.set(MANY);
    }
    let reply = general(&snapshot, &cache.context());
    assert!(reply.len() < 4096, "{}", reply.len());
    assert!(!cache.ask("stats").replace("END\r\n", "").contains("END"));
}

#[test]
fn general_adds_up_shards_and_workers() {
    let mut cache = Cache::new("");
    cache.set(0, "a", NEVER, b"1");
    cache.set(1, "b", NEVER, b"12");
    cache.set(1, "b", NEVER, b"123");
    cache.shard(0).store.counters.get_misses = 5;
    cache.shard(1).store.counters.cmd_touch = 6;
    cache.workers[0].bytes_read.add(7);
    cache.workers[1].bytes_read.add(8);
    cache.workers[0].given_connections.add(3);
    cache.workers[1].given_connections.add(2);
    cache.workers[1].closed_connections.add(1);
    cache.server.listeners.set(1);
    cache.server.total_connections.set(5);
    let reply = cache.ask("stats");
    check_values(
        &reply,
        &[
            ("curr_items", 2),
            ("total_items", 3),
            ("get_hits", 3),
            ("get_misses", 5),
            ("cmd_get", 8),
            ("cmd_touch", 6),
            ("bytes_read", 15),
            ("curr_connections", 4),
            ("connection_structures", 5),
            ("total_connections", 5),
            ("threads", 2),
            ("read_buf_count", 2),
            ("limit_maxbytes", 64 << 20),
            ("pointer_size", 64),
            ("hash_power_level", 17),
        ],
    );
    assert!(value(&reply, "bytes") > 6 && value(&reply, "uptime") >= 2 && value(&reply, "time") > 1_700_000_000);
    assert!(reply.contains("STAT version 1.6.45\r\n"));
    cache.ask("stats reset");
    let kept = [("curr_items", 2), ("curr_connections", 4), ("bytes", value(&reply, "bytes"))];
    check_values(&cache.ask("stats"), &kept);
    let forgotten = ["total_items", "get_hits", "get_misses", "cmd_touch", "bytes_read", "total_connections"];
    check_values(&cache.ask("stats"), &forgotten.map(|name| (name, 0)));
}

#[test]
fn times_have_six_digits_behind_the_point() {
    assert_eq!(micros(TimeVal::new(3, 45)), "3.000045");
    let reply = Cache::new("").ask("stats");
    for name in ["rusage_user ", "rusage_system "] {
        let time = reply.lines().find_map(|line| line.split_once(name)).expect("a line").1;
        let (seconds, micros) = time.split_once('.').expect("a point");
        assert!(seconds.parse::<u32>().is_ok() && micros.parse::<u32>().is_ok() && micros.len() == 6, "{time}");
    }
}

#[test]
fn settings_have_memcacheds_names_in_its_order() {
    let reply = Cache::new("").ask("stats settings");
    assert_eq!(names(&reply), SETTINGS.split_whitespace().collect::<Vec<_>>());
    assert_eq!(Cache::new("").ask("stats s"), reply);
    for line in reply.lines().filter(|&line| line != "END") {
        assert_eq!(line.split(' ').filter(|word| !word.is_empty()).count(), 3, "{line}");
    }
}

#[test]
fn settings_are_those_of_the_command_line_and_of_commands_since() {
    #[track_caller]
    fn check(flags: &str, commands: &[&str], expected: &[&str]) {
        let mut cache = Cache::new(flags);
        for command in commands {
            assert_eq!(cache.ask(command), "OK\r\n", "{command}");
        }
        let reply = cache.ask("stats settings");
        for line in expected {
            assert!(reply.contains(&format!("STAT {line}\r\n")), "{line} in {reply}");
        }
    }
    check(
        "",
        &[],
        &["maxbytes 67108864", "inter NULL", "domain_socket NULL", "umask 700", "oldest 0", "temporary_ttl 61"],
    );
    check(
        "-s /tmp/x -a 770 -M -D / -A -F -X -C -f 1.5 -R 7",
        &[],
        &[
            "domain_socket /tmp/x",
            "umask 770",
            "evictions off",
            "stat_key_prefix /",
            "detail_enabled yes",
            "shutdown_command yes",
            "flush_enabled no",
            "dump_enabled no",
            "cas_enabled no",
            "growth_factor 1.50",
            "reqs_per_event 7",
        ],
    );
    check(
        "-o temporary_ttl=9,hashpower=20,track_sizes",
        &[],
        &["temp_lru yes", "temporary_ttl 9", "hashpower_init 20", "track_sizes yes"],
    );
    check(
        "",
        &[
            "slabs automove 0",
            "slabs automove ratio 0.5",
            "slabs automove window 30",
            "lru tune 11 22 0.5 3",
            "lru temp_ttl 44",
            "lru_crawler sleep 5",
            "lru_crawler tocrawl 6",
            "lru_crawler disable",
            "stats detail on",
            "verbosity 9",
            "verbosity 1",
        ],
        &[
            "slab_automove 0",
            "slab_automove_ratio 0.50",
            "slab_automove_window 30",
            "hot_lru_pct 11",
            "warm_lru_pct 22",
            "hot_max_factor 0.50",
            "warm_max_factor 3.00",
            "temp_lru yes",
            "temporary_ttl 44",
            "lru_crawler no",
            "lru_crawler_sleep 5",
            "lru_crawler_tocrawl 6",
            "detail_enabled yes",
            "verbosity 1",
        ],
    );
}

const ITEMS: &str = "number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted \
    evicted_nonzero evicted_time outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched \
    evicted_active crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm \
    moves_within_lru direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp";

const SLABS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end \
    get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits";

#[test]
fn classes_are_added_up_over_shards() {
    let mut cache = Cache::new("");
    cache.set(0, "a", NEVER, b"1");
    cache.set(1, "b", NEVER, b"1");
    cache.shard(1).store.set_now(crate::clock::Now(9));
    cache.set(1, "c", NEVER, &[b'x'; 1000]);
    let items = cache.ask("stats items");
    let ids: Vec<&str> = names(&items).into_iter().filter_map(|name| name.strip_suffix(":number")).collect();
    let &[small, large] = ids.as_slice() else { panic!("two classes in {items}") };
    let all = |class: &str| ITEMS.split_whitespace().map(|name| format!("{class}:{name}")).collect::<Vec<_>>();
    assert_eq!(names(&items), [all(small), all(large)].concat());
    check_values(
        &items,
        &[
            (&format!("{small}:number"), 2),
            (&format!("{small}:number_hot"), 2),
            (&format!("{small}:age_hot"), 7),
            (&format!("{small}:hits_to_hot"), 2),
            (&format!("{large}:number"), 1),
        ],
    );
    cache.ask("lru temp_ttl 10");
    assert!(cache.ask("stats items").contains(":number_temp 0\r\n"));

    let slabs = cache.ask("stats slabs");
    let id = |class: &str| class.strip_prefix("items:").expect("a class").to_owned();
    let all = |class: &str| SLABS.split_whitespace().map(|name| format!("{}:{name}", id(class))).collect::<Vec<_>>();
    let globals = vec![String::from("active_slabs"), String::from("total_malloced")];
    assert_eq!(names(&slabs), [all(small), all(large), globals].concat());
    check_values(
        &slabs,
        &[
            (&format!("{}:total_pages", id(small)), 2),
            (&format!("{}:used_chunks", id(small)), 2),
            (&format!("{}:get_hits", id(small)), 2),
            (&format!("{}:used_chunks", id(large)), 1),
            ("active_slabs", 2),
            ("total_malloced", 3 << 20),
        ],
    );
}

#[test]
fn sizes_are_rounded_up_to_32_bytes() {
    let mut cache = Cache::new("-o track_sizes");
    cache.set(0, "a", NEVER, b"1");
    cache.set(1, "b", NEVER, b"1");
    cache.set(1, "c", NEVER, &[b'x'; 1000]);
    assert_eq!(cache.ask("stats sizes"), "STAT 32 2\r\nSTAT 1056 1\r\nEND\r\n");
}

#[test]
fn what_is_told_in_pieces_is_told_once() {
    let mut cache = Cache::new("-o track_sizes,no_lru_maintainer");
    // One shard has more items than one piece of a walk, the other has fewer.
    for (shard, count) in [(0, 1500), (1, 100)] {
        (0..count).for_each(|number| cache.set(shard, &format!("key-{shard}-{number:04}"), NEVER, b"12345678"));
    }
    assert_eq!(cache.ask("stats sizes"), "STAT 64 1600\r\nEND\r\n");

    let class = cache.ask("stats slabs").split(['\u{20}', ':']).nth(1).expect("a class").to_owned();
    let dump = cache.ask(&format!("stats cachedump {class} 0"));
    let mut keys: Vec<&str> = dump.lines().filter_map(|line| line.strip_prefix("ITEM ")?.split(' ').next()).collect();
    assert_eq!((keys[0], keys[1], keys[1599]), ("key-0-1499", "key-1-0099", "key-0-0000"));
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 1600);
    assert_eq!(cache.ask(&format!("stats cachedump {class} 1000")).lines().count(), 1001);
}

#[test]
fn cold_items_come_from_all_shards_up_to_the_limit() {
    #[track_caller]
    fn check(limit: usize, bytes_max: usize, expected: &str) {
        let lines = |keys: &[&str]| keys.iter().map(|key| format!("{key}\r\n").into_bytes()).collect();
        let mut list = ColdItems::default();
        let mut is_full = list.add(&[lines(&["a", "b"]), lines(&["x"])], limit, bytes_max);
        if !is_full {
            is_full = list.add(&[lines(&["c"])], limit, bytes_max);
        }
        let reply = cold_items(vec![Answer::Done, Answer::List(list)]);
        let full = if is_full { "full" } else { "" };
        assert_eq!(String::from_utf8_lossy(&reply).replace("\r\n", " ") + full, expected);
    }
    check(9, 99, "a x b c END ");
    check(2, 99, "a x END full");
    check(3, 99, "a x b END full");
    check(4, 99, "a x b c END full");
    check(9, 12, "a x END full");
    check(9, 15, "a x b END full");
}

#[test]
fn cold_items_are_shown_with_length_and_unix_time() {
    let mut cache = Cache::new("");
    cache.set(0, "a", NEVER, b"1");
    cache.set(0, "b", 100, b"123");
    let unix = cache.clock.unix(crate::clock::Now(100));
    let class = cache.ask("stats slabs").split(['\u{20}', ':']).nth(1).expect("a class").to_owned();
    cache.ask("lru tune 0 0 0.1 0.1");
    let line = format!("stats cachedump {class} 0");
    for _ in 0..cache.shard(0).store.housekeeping_round() {
        cache.shard(0).store.housekeep(10, true);
    }
    assert_eq!(cache.ask(&line), format!("ITEM b [3 b; {unix} s]\r\nITEM a [1 b; 0 s]\r\nEND\r\n"));
    assert_eq!(cache.ask(&format!("stats cachedump {class} 1")), format!("ITEM b [3 b; {unix} s]\r\nEND\r\n"));
}
