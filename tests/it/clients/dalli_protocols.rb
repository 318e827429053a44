# Dalli as today's Rails uses it, with the meta protocol if dalli has it, or with the binary one. The arguments are
# three ports, the protocol, and the beginning of dalli's version.
require 'dalli'

ports = ARGV.first(3)
PROTOCOL, VERSION = ARGV.drop(3)
raise 'three ports, a protocol and a version' unless ports.size == 3 && VERSION
raise "dalli is #{Dalli::VERSION}" unless Dalli::VERSION.start_with?(VERSION)

ADDRESSES = ports.map { |port| "127.0.0.1:#{port}" }
OPTIONS = { protocol: PROTOCOL.to_sym, socket_timeout: 10, down_retry_delay: 0, socket_failure_delay: 0 }.freeze
META = PROTOCOL == 'meta'
FIVE = Dalli::VERSION.start_with?('5')
# With meta, dalli 3 reads a value as a line, so no value here may contain the end of a line.
LINES = META && !FIVE

Dalli.logger.level = Logger::FATAL

# Dalli 5 needs Ruby 3.2. These are the methods that it uses and that Debian 12's Ruby 3.1 lacks.
unless String.method_defined?(:byteindex)
  class String
    def byteindex(part, offset = 0)
      b.index(part.b, offset)
    end

    def bytesplice(from, count, part)
      replace(byteslice(0, from) + part + byteslice((from + count)..))
      part
    end
  end
end

def same(expected, got, what)
  raise "#{what}: expected #{expected.inspect[0, 300]}, got #{got.inspect[0, 300]}" unless expected == got
end

def truth(expected, got, what)
  same(expected, got ? true : false, what)
end

def client(servers = ADDRESSES, **options)
  Dalli::Client.new(servers, OPTIONS.merge(options))
end

def bytes(seed, count)
  value = Random.new(seed).bytes(count)
  LINES ? value.tr("\r", 'r'.b) : value
end

def values(cache)
  same(nil, cache.get('nothing'), 'a miss')
  [nil, '', 'text', 'ünïcode', 42, 1 << 70, -1.5, true, false, :symbol, [1, 'two'], { a: { 'b' => nil } }].each do |value|
    truth(true, cache.set('typed', value, 100), 'set')
    same(value, cache.get('typed'), 'a value with its type')
  end
  raw = LINES ? "a\nEND\n\0\xff".b : "a\r\nEND\r\nHD\r\n\0\xff".b
  cache.set('raw', raw, 100, raw: true)
  same(raw, cache.get('raw').b, 'raw bytes')
  cache.set('empty', '', 100, raw: true)
  same('', cache.get('empty'), 'an empty raw value')
  cache.set('long', 'compress me ' * 10_000, 100, compress: true)
  same('compress me ' * 10_000, cache.get('long'), 'a compressed value')
  blob = bytes(1, 900_000)
  cache.set('blob', blob, 100, raw: true)
  same(true, cache.get('blob').b == blob, 'a large value')
  begin
    truth(false, cache.set('huge', bytes(2, 2_000_000), 100, raw: true), 'a value too large')
  rescue Dalli::DalliError
    # With meta, dalli raises an error of the server.
  end
  same(nil, cache.get('huge'), 'what was too large')
  same('', cache.get('empty'), 'a get after a refusal')
end

# With meta, the client sends keys with spaces or other characters than ASCII in base64. It shortens long keys.
def keys(cache)
  ['k', 'k' * 250, 'with space', "tab\there", 'schlüssel', '日本', "\u{1f511}" * 20, 'x' * 1000].each do |key|
    next if !META && key.match?(/\s/)

    truth(true, cache.set(key, key, 100), "set of #{key[0, 40]}")
    same(key, cache.get(key), 'get of the same')
    same({ key => key }, cache.get_multi(key, 'nothing'), 'get_multi of the same') if key.bytesize <= 180
    truth(true, cache.touch(key, 100), 'touch of the same')
    truth(true, cache.delete(key), 'delete of the same')
    same(nil, cache.get(key), 'what was deleted')
  end
end

def stores(cache)
  calls = 0
  2.times { same(7, cache.fetch('fetched', 100) { (calls += 1) && 7 }, 'fetch') }
  same(1, calls, 'calls of the block of fetch')
  cache.delete('fetched')

  cache.set('typed', 1)
  truth(false, cache.add('typed', 'x'), 'add of what is there')
  truth(true, cache.add('new', 'b', 100, raw: true), 'add')
  same(true, cache.append('new', 'c') && cache.prepend('new', 'a'), 'append and prepend')
  same('abc', cache.get('new'), 'what was joined')
  truth(false, cache.append('nothing', 'x'), 'append to nothing')
  truth(false, cache.prepend('nothing', 'x'), 'prepend to nothing')
  truth(true, cache.replace('new', 'x', 100), 'replace')
  replaced = cache.replace('nothing', 'x')
  # The binary protocol returns 0, which is true in Ruby.
  truth(false, replaced, 'replace of nothing') unless replaced == 0
  same(nil, cache.get('nothing'), 'what was not replaced')
  truth(true, cache.delete('new'), 'delete')
  truth(false, cache.delete('new'), 'delete of nothing')
end

def compare_and_set(cache)
  cache.set('balance', 100)
  truth(true, cache.cas('balance') { |value| value + 1 }, 'cas')
  same(101, cache.get('balance'), 'what cas wrote')
  lost = cache.cas('balance') do |value|
    cache.set('balance', 50)
    value + 1
  end
  truth(false, lost, 'cas with a rival')
  same(50, cache.get('balance'), 'what the rival wrote')
  same(nil, cache.cas('nothing') { raise 'called' }, 'cas of nothing')
  truth(true, cache.cas!('made') { |value| [value] }, 'cas! of nothing')
  same([nil], cache.get('made'), 'what cas! made')
  cache.delete('made')

  value, first = cache.get_cas('balance')
  same(50, value, 'get_cas')
  same([nil, 0], cache.get_cas('nothing'), 'get_cas of nothing')
  second = cache.set_cas('balance', 51, first)
  raise "set_cas #{second}" unless second.is_a?(Integer) && second > first

  truth(false, cache.set_cas('balance', 52, first), 'set_cas, late')
  third = cache.replace_cas('balance', 53, second)
  raise "replace_cas #{third}" unless third.is_a?(Integer) && third > second

  truth(false, cache.replace_cas('balance', 54, second), 'replace_cas, late')
  truth(false, cache.delete_cas('balance', second), 'delete_cas, late')
  same({ 'balance' => [53, third] }, cache.get_multi_cas('balance', 'nothing'), 'get_multi_cas')
  truth(true, cache.delete_cas('balance', third), 'delete_cas')
  same(nil, cache.get('balance'), 'what delete_cas deleted')
end

def counters(cache)
  same(10, cache.incr('counter', 1, 100, 10), 'incr that makes')
  same(15, cache.incr('counter', 5), 'incr')
  same(0, cache.decr('counter', 50), 'decr below nothing')
  same(7, cache.decr('down', 1, 100, 7), 'decr that makes')
  same(6, cache.decr('down'), 'decr')
  same(nil, cache.incr('missing', 1), 'incr of nothing')
  same(nil, cache.decr('missing', 1), 'decr of nothing')
  cache.set('limit', ((1 << 64) - 1).to_s, 100, raw: true)
  same(0, cache.incr('limit', 1), 'incr over the edge')
  cache.set('word', 'word', 100, raw: true)
  begin
    raise Dalli::RingError, cache.incr('word', 1).inspect
  rescue Dalli::DalliError => error
    raise "incr of a word: #{error}" unless error.message.match?(/CLIENT_ERROR|Incr\/decr on a non-numeric value/)
  end
  same('word', cache.get('word'), 'a get after an error')
  %w[counter down limit].each { |key| cache.delete(key) }
end

def times(cache)
  now = Time.now.to_i
  [nil, 0, 100, 30 * 86_400, 31 * 86_400, now + 100].each do |ttl|
    cache.set('timed', 'x', ttl)
    same('x', cache.get('timed'), "ttl #{ttl}")
  end
  cache.set('timed', 'x', 100)
  truth(true, cache.touch('timed', 200), 'touch')
  same('x', cache.gat('timed', 300), 'gat')
  same(nil, cache.touch('nothing', 100), 'touch of nothing')
  same(nil, cache.gat('nothing', 100), 'gat of nothing')
  left = cache.get_with_metadata('timed', return_ttl_remaining: true)[:ttl_remaining] if FIVE
  raise "#{left} seconds left" unless left.nil? || left.between?(280, 300)

  return unless META

  # The binary protocol has no time in the past. There, -1 is a date in the far future.
  truth(true, cache.touch('timed', -1), 'touch with a time in the past')
  same(nil, cache.get('timed'), 'what that left')
end

# Requests without replies, and a last one with a reply.
def quietly(cache)
  cache.set('once', 'x')
  cache.quiet do
    300.times { |i| cache.set("many-#{i}", i, 100) }
    cache.delete('many-0')
    cache.delete('nothing')
    cache.add('once', 'y')
    cache.add('added', 'a', 100, raw: true)
    cache.append('added', 'b')
    cache.prepend('added', '<')
    cache.append('nothing', 'b')
    cache.replace('once', 'z')
    cache.replace('nothing', 'z')
    cache.set('number', '10', 100, raw: true)
    cache.incr('number', 5)
    cache.decr('number', 1)
    cache.incr('nothing', 5)
    cache.incr('once', 5)
  end
  same('z', cache.get('once'), 'what a quiet block replaced')
  same('<ab', cache.get('added'), 'what it joined')
  same('14', cache.get('number'), 'what it counted')
  names = Array.new(300) { |i| "many-#{i}" }
  same((1..299).to_h { |i| ["many-#{i}", i] }, cache.get_multi(names + ['nothing']).sort_by(&:last).to_h, 'get_multi')
  seen = {}
  cache.get_multi(names) { |key, value| seen[key] = value }
  same(299, seen.size, 'get_multi with a block')
  same({}, cache.get_multi('nothing', 'nobody'), 'get_multi of nothing')
  # The request and the reply are larger than the buffers of a socket.
  large = (0...40).to_h { |i| ["large-#{i}", bytes(i, 50_000)] }
  cache.multi { large.each { |key, value| cache.set(key, value, 100, raw: true) } }
  got = cache.get_multi(large.keys)
  same(large.keys.sort, got.keys.sort, 'get_multi of large values')
  raise 'large values' unless large.all? { |key, value| got[key].b == value }

  cache.quiet { names.each { |key| cache.delete(key) } }
  same({}, cache.get_multi(names), 'what a quiet block deleted')
end

# Methods that dalli has since it uses only meta.
def only_meta(cache, servers)
  pairs = (0...500).to_h { |i| ["pair-#{i}", [i]] }
  cache.set_multi(pairs, 100)
  same(pairs, cache.get_multi(pairs.keys).sort_by { |_, value| value }.to_h, 'set_multi')
  same(500, cache.delete_multi(pairs.keys + ['nothing']), 'delete_multi')

  cache.set('seen', 'x', 100)
  told = %i[return_hit_status return_last_access return_ttl_remaining].to_h { |option| [option, true] }
  first = cache.get_with_metadata('seen', told)
  same(['x', false, false], first.values_at(:value, :miss, :hit_before), 'the first get')
  raise "last access #{first}" unless first[:last_access].between?(0, 20)

  same(true, cache.get_with_metadata('seen', told)[:hit_before], 'the second get')
  same(true, cache.get_with_metadata('nothing', told)[:miss], 'a miss')
  cache.set('forever', 'x')
  same(-1, cache.get_with_metadata('forever', told)[:ttl_remaining], 'no time to live')

  # Many clients ask at the same time, and only one makes the value.
  same('made', cache.fetch_with_lock('herd', ttl: 100) { 'made' }, 'the first to ask')
  same('made', cache.fetch_with_lock('herd', ttl: 100) { raise 'called' }, 'the second')
  makers = Queue.new
  rivals = Array.new(8) do
    Thread.new do
      mine = client(servers)
      mine.fetch_with_lock('crowd', ttl: 100) { makers << 1 && 'made' }
    ensure
      mine&.close
    end
  end
  rivals.each(&:join)
  same(1, makers.size, 'those of a crowd that make the value')
  same('made', cache.get('crowd'), 'what the one made')
  calls = 0
  cache.set('ageing', 'old', 20)
  2.times { cache.fetch_with_lock('ageing', ttl: 100, recache_threshold: 60) { (calls += 1) && 'new' } }
  same([1, 'new'], [calls, cache.get('ageing')], 'a value that is made again before its end')

  # A tombstone is not a miss.
  cache.set('grave', 'x', 100)
  truth(true, cache.delete('grave', invalidate: true, tombstone_ttl: 30), 'a tombstone')
  cache.set('kept', 'x', 100)
  both = cache.get_multi_with_metadata('grave', 'kept', 'nothing')
  same({ 'grave' => true, 'kept' => false }, both.transform_values { |entry| entry[:stale] }, 'what is stale')
  # Debian 12's memcached has no flag for this.
  unless cache.version.value?('1.6.18')
    truth(true, cache.delete('kept', drop_value: true), 'a value dropped')
    same('', cache.get('kept'), 'what was dropped')
  end
  %w[grave kept].each { |key| cache.delete(key) }
end

def statistics(cache)
  cache.stats.each_value do |stats|
    raise "stats #{stats}" unless stats['pid'].to_i.positive? && stats['curr_items'].to_i.positive?
  end
  cache.stats(:settings).each_value { |stats| same('1024', stats['maxconns'], 'maxconns') }
  cache.stats(:slabs).each_value { |stats| same(true, stats['active_slabs'].to_i.positive?, 'active_slabs') }
  cache.stats(:items).each_value { |stats| same(true, stats.keys.any? { |key| key.end_with?(':number') }, 'items') }
  cache.version.each_value { |version| raise "version #{version}" unless version.match?(/\A1\.6\.\d+\z/) }
  cache.reset_stats
  cache.stats.each_value { |stats| same('0', stats['get_hits'], 'get_hits after a reset') }
end

[ADDRESSES.first(1), ADDRESSES].each do |servers|
  cache = client(servers)
  values(cache)
  keys(cache)
  stores(cache)
  compare_and_set(cache)
  counters(cache)
  times(cache)
  quietly(cache)
  only_meta(cache, servers) if FIVE
  statistics(cache)
  cache.flush
  same(nil, cache.get('typed'), 'get after a flush')
  # The threads of an application share a client.
  threads = Array.new(8) do |thread|
    Thread.new do
      100.times do |i|
        cache.set("thread-#{thread}", i)
        same(i, cache.get("thread-#{thread}"), 'a get of a thread')
      end
    end
  end
  threads.each(&:join)
  cache.close
end

# Two applications use the same servers.
one = client(namespace: 'one', compress: true, expires_in: 100)
two = client(namespace: -> { 'two' }, digest_class: Digest::SHA256)
one.set('key', 1)
two.set('key', 2)
same([1, 2], [one.get('key'), two.get('key')], 'namespaces')
same({ 'key' => 1 }, one.get_multi('key'), 'get_multi in a namespace')
same(1, client.get('one:key'), 'what a namespace is')
two.set('k' * 300, 'a long key')
same('a long key', two.get('k' * 300), 'a key that the client shortens')
nils = client(cache_nils: true)
nils.set('nil', nil)
same(nil, nils.fetch('nil', 100) { raise 'called' }, 'a nil that is cached')

# The servers restart.
puts 'restart'
$stdout.flush
$stdin.gets
100.times do
  break if one.set('again', 'x') && one.get('again') == 'x'
rescue Dalli::DalliError
  next
end
same('x', one.get('again'), 'get after a restart')
same(nil, one.get('key'), 'what was there before a restart')
puts 'ok'
