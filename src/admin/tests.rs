use super::*;
use crate::clock::{Clock, NEVER, Now};
use crate::command::Reply;
use crate::command::Shard;
use crate::config::Config;
use crate::counters::{ServerCounters, UploadUse, WorkerCounters};
use crate::hash::KeyHasher;
use crate::measure::Measures;
use crate::nodes::{NodeList, Nodes};
use crate::protocol::Limits;
use crate::store::budget::Budget;
use crate::store::item::Items;
use crate::store::{Store, StoreOptions, arena::Arena};
use line::OK;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use walk::WalkKind;

/// A cache of two shards and two workers, without sockets.
pub(crate) struct Cache {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) workers: [WorkerCounters; 2],
    pub(crate) measures: [Measures; 2],
    pub(crate) server: ServerCounters,
    nodes: Option<Nodes>,
    budget: Arc<Budget>,
    hasher: KeyHasher,
    shards: Vec<Shard>,
}

impl Cache {
    pub(crate) fn new(flags: &str) -> Cache {
        let words = ["corecached", "-t", "2", "-m", "64"].into_iter().chain(flags.split_ascii_whitespace());
        let config = Config::parse_from(words.map(Into::into)).expect("good flags");
        let arena = Arc::new(Arena::reserve(100, 1 << 20).expect("address space"));
        let budget = Arc::new(Budget::new(64, 2, &arena));
        let hasher = KeyHasher::seeded(7);
        let shard = |number: u16| {
            let items = Items::new(Arc::clone(&arena), true);
            let options = StoreOptions { tuning: config.tuning, ..StoreOptions::default() };
            let store = Store::new(usize::from(number), options, items, Arc::clone(&budget), hasher.clone());
            let limits = Limits { item_size_max: 1 << 20, cas: true, inline_max: 2048 };
            Shard::new(number, store.expect("address space"), limits)
        };
        let shards = vec![shard(0), shard(1)];
        let (workers, server) = (Default::default(), ServerCounters::default());
        let measures = [(); 2].map(|()| Measures::new(config.samples(), Instant::now()));
        let settings = Settings::new(&config);
        Cache {
            config,
            settings,
            clock: Clock::start(),
            workers,
            measures,
            server,
            nodes: None,
            budget,
            hasher,
            shards,
        }
    }

    pub(crate) fn context(&self) -> ServerContext<'_> {
        ServerContext {
            config: &self.config,
            settings: &self.settings,
            now: self.clock.now(),
            clock: &self.clock,
            budget: &self.budget,
            auth: None,
            nodes: self.nodes.as_ref(),
            workers: &self.workers,
            measures: &self.measures,
            listeners: &[],
            server: &self.server,
            worker: 1,
            uploads: UploadUse::default(),
        }
    }

    pub(crate) fn shard(&mut self, number: usize) -> &mut Shard {
        &mut self.shards[number]
    }

    /// Stores a value in a shard, and gets it once.
    pub(crate) fn set(&mut self, number: usize, key: &str, deadline: u32, value: &[u8]) {
        let hash = self.hasher.hash(key.as_bytes());
        let store = &mut self.shards[number].store;
        let old = store.find(hash, key.as_bytes()).ok().map(|entry| entry.id);
        let id = store.put(hash, key.as_bytes(), 0, deadline, value, old).expect("memory");
        store.hit(id);
    }

    fn has(&mut self, number: usize, key: &str) -> bool {
        self.shards[number].store.find(self.hasher.hash(key.as_bytes()), key.as_bytes()).is_ok()
    }

    /// The reply to a line.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let reply = match plan(line.as_bytes(), &self.context()) {
            Action::Say(text) => text,
            Action::Quit => b"<quit>\r\n".to_vec(),
            Action::Access(..) | Action::Enter { .. } | Action::Check(..) => unreachable!("no line gives access"),
            Action::Watch(categories) => format!("<watch: {categories:?}>\r\n").into_bytes(),
            Action::Walk(mut walk) => {
                let mut reply = Reply::default();
                while let Some(shard) = self.shards.get_mut(walk.shard) {
                    walk.step(shard, &self.clock, &mut reply);
                }
                reply.out.put(walk.terminator());
                if walk.kind == WalkKind::Crawl { OK.to_vec() } else { reply.out.take() }
            }
            Action::Stop { graceful } => format!("<stop, graceful: {graceful}>\r\n").into_bytes(),
            Action::Ask(Query::Connections, report) => {
                let description = |accepts, fd| Description { accepts, fd, lines: format!("STAT {fd}:addr x\r\n") };
                let answers = [
                    vec![description(false, 3), description(false, 1)],
                    vec![],
                    vec![description(false, 2), description(true, 4)],
                ];
                let answers = answers.into_iter().map(Answer::Connections).collect();
                finish(&report, answers, &self.context())
            }
            Action::Ask(mut query, report) => {
                let mut answers = Vec::new();
                loop {
                    answers.extend(self.shards.iter_mut().map(|shard| answer(shard, &query, &self.clock)));
                    let Some(rest) = go_on(&query, &mut answers) else { break };
                    query = rest;
                }
                finish(&report, answers, &self.context())
            }
        };
        String::from_utf8(reply).expect("text")
    }
}

/// Checks the reply to each line. `BCLF` stands for memcached's most frequent error; an empty text expects no reply.
#[track_caller]
fn check(flags: &str, talk: &str) {
    let mut cache = Cache::new(flags);
    for row in talk.trim().lines() {
        let (line, expected) = row.split_once(" =>").expect("line => reply");
        let expected = match expected.trim() {
            "" => String::new(),
            "BCLF" => String::from("CLIENT_ERROR bad command line format\r\n"),
            text => text.replace(" | ", "\r\n") + "\r\n",
        };
        assert_eq!(cache.ask(line.trim_start()), expected, "{row}");
    }
}

#[test]
fn commands_of_a_connection() {
    check(
        "",
        "
        version => VERSION 1.6.45
        version foo bar => VERSION 1.6.45
        version noreply => VERSION 1.6.45
        quit => <quit>
        quit noreply => <quit>
        verbosity => BCLF
        verbosity noreply =>
        verbosity 0 noreply =>
        verbosity 1 => OK
        verbosity 1 2 => OK
        verbosity 99 => OK
        verbosity foo => BCLF
        verbosity foo bar my => BCLF
        verbosity -1 => BCLF
        verbosity 0 => OK
        refresh_certs => Error TLS not enabled
        misbehave => ERROR
        config get cluster => ERROR
        config get cluster noreply =>
        config get cluster HTTP/1.1 => <quit>
        nonsense noreply =>
        ",
    );
}

#[test]
fn a_cluster_is_told_to_exactly_one_question() {
    let mut cache = Cache::new("");
    let list = NodeList::from_text(b"version 12\n10.0.0.1\n", 1, |_| unreachable!("it is an address"));
    cache.nodes = Some(Nodes::new(list.expect("a good file")));
    let told = "CONFIG cluster 0 27\r\n12\n10.0.0.1|10.0.0.1|11211\n\r\nEND\r\n";
    for (line, reply) in [
        ("config get cluster", told),
        ("config  get\tcluster ", "ERROR\r\n"),
        ("config  get  cluster ", told),
        ("config get cluster 1", "ERROR\r\n"),
        ("config get cluste", "ERROR\r\n"),
        ("config get", "ERROR\r\n"),
        ("config", "ERROR\r\n"),
        ("config set cluster 0 0", "ERROR\r\n"),
        ("config get cluster noreply", ""),
    ] {
        assert_eq!(cache.ask(line), reply, "{line}");
    }
}

#[test]
fn flushing() {
    check(
        "",
        "
        flush_all => OK
        flush_all 0 => OK
        flush_all -5 => OK
        flush_all noreply =>
        flush_all 10 noreply =>
        flush_all x => CLIENT_ERROR invalid exptime argument
        flush_all x noreply =>
        flush_all noreply 1 => CLIENT_ERROR invalid exptime argument
        flush_all 1 2 3 => OK
        ",
    );
    check("-F", "flush_all => CLIENT_ERROR flush_all not allowed\n flush_all noreply =>");
    // Lines of `delete` come here only with `-o flush_prefix_key`.
    check("", "delete a => ERROR\n md a => ERROR\n delete => ERROR");
    check("-o flush_prefix_key=!!", "delete ! => ERROR\n md a => ERROR\n delete !!a => DELETED\n md !!a q =>");
    let mut cache = Cache::new("");
    cache.set(0, "a", NEVER, b"1");
    cache.ask("flush_all 100");
    let oldest = cache.settings.oldest.load(Ordering::Relaxed);
    assert_eq!(oldest, cache.clock.now().0 + 99);
    assert!(cache.ask("stats items").contains("number 1"));
    cache.shard(0).store.set_now(Now(oldest));
    assert!(!cache.has(0, "a"));
    assert_eq!((cache.workers[0].cmd_flush.get(), cache.workers[1].cmd_flush.get()), (0, 1));
}

#[test]
fn a_flush_that_was_due_before_the_clock_began_keeps_all() {
    for (exptime, kept) in [(2_592_001, true), (1_000_000_000, true), (0, false), (-60, false), (-64, true)] {
        let mut cache = Cache::new("");
        cache.set(0, "a", NEVER, b"1");
        let now = cache.clock.now();
        cache.shard(0).store.set_now(now);
        let exptime = if exptime > 0 { exptime } else { cache.clock.unix(now) + exptime };
        cache.ask("flush_all 10");
        assert_eq!(cache.ask(&format!("flush_all {exptime}")), "OK\r\n");
        assert_eq!(cache.has(0, "a"), kept, "{exptime}");
        assert_eq!(cache.settings.oldest.load(Ordering::Relaxed) == 0, kept, "{exptime}");
        cache.shard(0).store.set_now(Now(now.0 + 20));
        assert_eq!(cache.has(0, "a"), kept, "{exptime}");
    }
}

#[test]
fn a_flush_takes_effect_at_once_in_a_store_whose_clock_is_behind() {
    let mut cache = Cache::new("");
    cache.clock.advance(5);
    cache.set(0, "a", NEVER, b"1");
    assert_eq!(cache.ask("flush_all"), "OK\r\n");
    assert!(!cache.has(0, "a"));
}

#[test]
fn memory_limit() {
    check(
        "",
        "
        cache_memlimit => ERROR
        cache_memlimit x => ERROR
        cache_memlimit -1 => ERROR
        cache_memlimit 7 => MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m
        cache_memlimit 7 noreply =>
        cache_memlimit 8 => OK
        cache_memlimit 80 x y => OK
        cache_memlimit 999999999 => MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust
        cache_memlimit 1000000001 => MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes
        ",
    );
    let mut cache = Cache::new("");
    cache.ask("cache_memlimit 32 noreply");
    assert!(cache.ask("stats settings").contains("STAT maxbytes 33554432\r\n"));
    assert!(cache.ask("stats").contains("STAT limit_maxbytes 33554432\r\n"));
}

#[test]
fn shutting_down() {
    check("", "shutdown => SERVER_ERROR: shutdown not enabled\n shutdown x noreply =>");
    check(
        "-A",
        "
        shutdown => <stop, graceful: false>
        shutdown graceful => <stop, graceful: true>
        shutdown g => <stop, graceful: true>
        shutdown graceful x => CLIENT_ERROR invalid shutdown mode
        shutdown x => CLIENT_ERROR invalid shutdown mode
        ",
    );
}

#[test]
fn slab_pages() {
    check(
        "",
        "
        slabs => ERROR
        slabs x => ERROR
        slabs reassign 1 => ERROR
        slabs reassign 1 2 3 => ERROR
        slabs reassign x 1 => BCLF
        slabs reassign 1 x => BCLF
        slabs reassign 1 1 => SAME src and dst class are identical
        slabs reassign -2 1 => BADCLASS invalid src or dst class id
        slabs reassign 1 -1 => BADCLASS invalid src or dst class id
        slabs reassign 64 1 => BADCLASS invalid src or dst class id
        slabs reassign -1 1 => BADCLASS invalid src or dst class id
        slabs re 1 0 => NOSPARE source class has no spare pages
        slabs automove => ERROR
        slabs automove x => BCLF
        slabs automove -1 => BCLF
        slabs automove 3 => ERROR
        slabs automove 2 => OK
        slabs automove 1 noreply =>
        slabs automove ratio => ERROR
        slabs automove ratio x => ERROR
        slabs automove ratio nan => ERROR
        slabs automove ratio 0.5 => OK
        slabs automove freeratio => ERROR
        slabs automove freeratio 0.5 => OK
        slabs automove window => BCLF
        slabs automove window x => BCLF
        slabs automove window 2 => CLIENT_ERROR automove window too low or too high
        slabs automove window 1801 => CLIENT_ERROR automove window too low or too high
        slabs automove window 30 => OK
        ",
    );
    check("-o no_slab_reassign", "slabs reassign x 1 => CLIENT_ERROR slab reassignment disabled");
}

#[test]
fn lru_options() {
    check(
        "",
        "
        lru => ERROR
        lru tune 1 2 3 => ERROR
        lru tune x 20 1 2 => ERROR
        lru tune -1 20 1 2 => ERROR
        lru tune 10 20 x 2 => ERROR
        lru tune 50 40 0.5 2 => ERROR hot and warm pcts must not exceed 80
        lru tune 4294967295 4294967295 1 1 => ERROR hot and warm pcts must not exceed 80
        lru tune 10 20 0 2 => ERROR hot/warm age factors must be greater than 0
        lru tune 10 20 0.5 2 noreply =>
        lru mode => ERROR
        lru mode flat => OK
        lru mode f => OK
        lru mode flat noreply =>
        lru mode segmented => OK
        lru mode x => ERROR
        lru temp_ttl => ERROR
        lru temp_ttl x => ERROR
        lru temp_ttl 10 => OK
        lru temp_ttl -1 => OK
        lru foo 1 => ERROR
        ",
    );
    check("-o no_lru_maintainer", "lru mode segmented => ERROR\n lru temp_ttl 1 => ERROR\n lru tune 1 2 3 4 => OK");
    let mut cache = Cache::new("");
    cache.ask("lru tune 11 22 0.5 3");
    cache.ask("lru temp_ttl 44");
    let options = cache.shard(1).store.options();
    assert_eq!((options.tuning.lru.hot_percent, options.tuning.lru.warm_percent), (11, 22));
    assert_eq!((options.tuning.lru.hot_max_factor, options.tuning.lru.warm_max_factor), (0.5, 3.0));
    assert_eq!(options.tuning.temporary_ttl, Some(44));
    cache.ask("lru temp_ttl -1");
    assert_eq!(cache.shard(1).store.options().tuning.temporary_ttl, None);
}

#[test]
fn watching() {
    check("", "watch bogus => <watch: None>\n watch noreply => <watch: None>");
    check(
        "-W",
        "watch => CLIENT_ERROR watch commands not allowed\n watch x => CLIENT_ERROR watch commands not allowed",
    );
}

#[test]
fn crawler() {
    check(
        "",
        "
        lru_crawler => ERROR
        lru_crawler enable => ERROR failed to start lru crawler thread
        lru_crawler crawl all => OK
        lru_crawler crawl 1,2,63 => OK
        lru_crawler crawl hash => ERROR an unknown error happened
        lru_crawler crawl , => NOTSTARTED no items to crawl
        lru_crawler crawl 0 => BADCLASS invalid class id
        lru_crawler crawl 64 => BADCLASS invalid class id
        lru_crawler crawl 1,x => BADCLASS invalid class id
        lru_crawler crawl all x => ERROR
        lru_crawler crawl => ERROR
        lru_crawler crawl all noreply =>
        lru_crawler metadump all => END
        lru_crawler metadump 1,64 => BADCLASS invalid class id
        lru_crawler metadump all x => ERROR
        lru_crawler mgdump hash => EN
        lru_crawler disable => OK
        lru_crawler disable => OK
        lru_crawler crawl all => CLIENT_ERROR lru crawler disabled
        lru_crawler metadump all => CLIENT_ERROR lru crawler disabled
        lru_crawler e => OK
        lru_crawler sleep 1000000 => OK
        lru_crawler sleep 1000001 => CLIENT_ERROR sleep must be one second or less
        lru_crawler sleep x => BCLF
        lru_crawler sleep 1 x => ERROR
        lru_crawler tocrawl 5 => OK
        lru_crawler tocrawl -1 => BCLF
        lru_crawler foo 1 => ERROR
        ",
    );
    check(
        "-X",
        "
        lru_crawler metadump all => ERROR metadump not allowed
        lru_crawler mgdump all => ERROR key dump not allowed
        ",
    );
    let mut cache = Cache::new("");
    cache.set(0, "a", 3, b"1");
    cache.shard(0).store.set_now(Now(10));
    cache.ask("lru_crawler crawl all");
    assert_eq!(cache.shard(0).store.snapshot().curr_items, 0);
}

#[test]
fn sub_commands_of_stats() {
    check(
        "",
        "
        stats noreply => ERROR
        stats foo => ERROR
        stats item => ERROR
        stats sizes_enable => ERROR
        stats items x => END
        stats slabs => STAT active_slabs 0 | STAT total_malloced 0 | END
        stats sizes => STAT sizes_status disabled | END
        stats evictions => STAT evictions_for_room 0 | STAT evictions_by_moves 0 | STAT evictions_by_chains 0 | END
        stats leases => STAT leases_refused 0 | STAT batches_posted 0 | STAT hot_copy_hits 0 | END
        stats conns => STAT 4:addr x | STAT 1:addr x | STAT 2:addr x | STAT 3:addr x | END
        stats co => STAT 4:addr x | STAT 1:addr x | STAT 2:addr x | STAT 3:addr x | END
        stats reset noreply => RESET
        stats r => RESET
        stats cachedump => CLIENT_ERROR bad command line
        stats c => CLIENT_ERROR bad command line
        stats cachedump 1 => CLIENT_ERROR bad command line
        stats cachedump x 0 => BCLF
        stats cachedump 1 -1 => BCLF
        stats cachedump 1 noreply => BCLF
        stats cachedump 64 0 => CLIENT_ERROR Illegal slab id
        stats cachedump 63 0 => END
        stats cachedump 0 0 => END
        stats detail => CLIENT_ERROR usage: stats detail on|off|dump
        stats detail x => CLIENT_ERROR usage: stats detail on|off|dump
        stats d on => OK
        stats detail dump => END
        stats detail off => OK
        ",
    );
    check("-o track_sizes", "stats sizes => END");
    check(
        "-X",
        "
        stats cachedump 1 1 => CLIENT_ERROR stats cachedump not allowed
        stats detail dump => CLIENT_ERROR stats detail not allowed
        ",
    );
}

#[test]
fn counting_by_prefix_goes_on_when_it_is_asked_for_again() {
    let mut cache = Cache::new("-D /");
    cache.ask("stats detail on");
    cache.shard(0).prefixes.as_mut().expect("on").count_get(b"a/x", true);
    cache.shard(1).prefixes.as_mut().expect("on").count_set(b"a/y");
    cache.shard(1).prefixes.as_mut().expect("on").count_delete(b"b/");
    cache.ask("stats detail on");
    let expected = "PREFIX a get 1 hit 1 set 1 del 0\r\nPREFIX b get 0 hit 0 set 0 del 1\r\nEND\r\n";
    assert_eq!(cache.ask("stats detail dump"), expected);
    cache.ask("stats reset");
    assert_eq!(cache.ask("stats detail dump"), "END\r\n");
    assert!(cache.shard(0).prefixes.is_some());
}

#[test]
fn the_debug_build_moves_the_clock() {
    if cfg!(feature = "debug-commands") {
        check("", "debugtime => ERROR\n debugtime x => ERROR\n debugtime p => OK\n debugtime r => OK");
        let mut cache = Cache::new("");
        let before = cache.clock.now().0;
        cache.ask("debugtime 100");
        cache.ask("debugtime -40");
        cache.ask("debugtime +1");
        assert!((before + 61..before + 70).contains(&cache.clock.now().0));
    } else {
        check("", "debugtime p => ERROR");
    }
}
