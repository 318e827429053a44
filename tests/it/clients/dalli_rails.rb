# Dalli as Rails uses it: fetch, multi, cas with a block, counters, a ring of servers. It uses the binary protocol.
require 'dalli'

ports = ARGV
raise 'three ports' unless ports.size == 3

ADDRESSES = ports.map { |port| "127.0.0.1:#{port}" }
OPTIONS = { socket_timeout: 10, down_retry_delay: 0, socket_failure_delay: 0 }.freeze

Dalli.logger.level = Logger::FATAL

def same(expected, got, what)
  raise "#{what}: expected #{expected.inspect[0, 300]}, got #{got.inspect[0, 300]}" unless expected == got
end

def commands(client)
  same(nil, client.get('nothing'), 'a miss')
  [nil, '', 'text', 'ünïcode', 42, 1 << 70, -1.5, true, false, :symbol, [1, 'two'], { a: { 'b' => nil } }].each do |value|
    raise 'set' unless client.set('typed', value, 100)

    same(value, client.get('typed'), 'a value with its type')
  end
  client.set('raw', "a\r\nEND\r\n\0\xff".b, 100, raw: true)
  same("a\r\nEND\r\n\0\xff".b, client.get('raw', raw: true).b, 'raw bytes')
  client.set('long', 'compress me ' * 10_000, 100, compress: true)
  same('compress me ' * 10_000, client.get('long'), 'a compressed value')

  calls = 0
  2.times { same(7, client.fetch('fetched', 100) { (calls += 1) && 7 }, 'fetch') }
  same(1, calls, 'calls of the block of fetch')

  same(false, client.add('typed', 'x') ? true : false, 'add of what is there')
  same(true, client.add('new', 'b', 100, raw: true) ? true : false, 'add')
  same(true, client.append('new', 'c') && client.prepend('new', 'a'), 'append and prepend')
  same('abc', client.get('new', raw: true), 'what was joined')
  same(true, client.replace('new', 'x', 100) ? true : false, 'replace')
  client.replace('nothing', 'x') # which answers 0: in Ruby, that is true
  same(nil, client.get('nothing'), 'replace of nothing')
  same(true, client.delete('new') ? true : false, 'delete')
  same(false, client.delete('new') ? true : false, 'delete of nothing')

  client.set('balance', 100)
  same(true, client.cas('balance') { |value| value + 1 } ? true : false, 'cas')
  taken = client.cas('balance') do |value|
    client.set('balance', 50)
    value + 1
  end
  same(false, taken ? true : false, 'cas with a rival')
  same(50, client.get('balance'), 'what the rival wrote')
  same(nil, client.cas('nothing') { raise 'called' }, 'cas of nothing')

  same(10, client.incr('counter', 1, 100, 10), 'incr that makes')
  same(15, client.incr('counter', 5), 'incr')
  same(0, client.decr('counter', 50), 'decr below nothing')
  same(nil, client.incr('missing', 1), 'incr of nothing')

  now = Time.now.to_i
  [[nil, 'x'], [0, 'x'], [100, 'x'], [30 * 86_400, 'x'], [now + 100, 'x']].each do |ttl, value|
    client.set('timed', 'x', ttl)
    same(value, client.get('timed'), "ttl #{ttl}")
  end
  client.set('timed', 'x', 100)
  same(true, client.touch('timed', 200) ? true : false, 'touch')
  same('x', client.gat('timed', 300), 'gat')
  same(nil, client.touch('nothing', 100), 'touch of nothing')
  same(nil, client.gat('nothing', 100), 'gat of nothing')

  # The client sends quiet commands, and then a noop whose reply it waits for.
  client.multi do
    300.times { |i| client.set("many-#{i}", i, 100) }
    client.delete('many-0')
  end
  keys = Array.new(300) { |i| "many-#{i}" }
  same((1..299).to_h { |i| ["many-#{i}", i] }, client.get_multi(keys + ['nothing']).sort_by(&:last).to_h, 'get_multi')

  blob = Random.new(1).bytes(900_000)
  client.set('blob', blob, 100, raw: true)
  same(true, client.get('blob', raw: true).b == blob, 'a large value')
  begin
    same(false, client.set('huge', blob * 2, 100, raw: true) ? true : false, 'a value too large')
  rescue Dalli::ValueOverMaxSize, Dalli::DalliError
    # The client knows the limit too.
  end
  same(nil, client.get('huge'), 'what was too large')
end

[ADDRESSES.first, ADDRESSES].each do |servers|
  client = Dalli::Client.new(servers, OPTIONS)

  commands(client)
  client.stats.each_value do |stats|
    raise "stats #{stats}" unless stats['pid'].to_i.positive? && stats['curr_items'].to_i.positive?
  end
  client.stats(:settings).each_value { |stats| same('1024', stats['maxconns'], 'maxconns') }
  client.stats(:slabs).each_value { |stats| same(true, stats['active_slabs'].to_i.positive?, 'active_slabs') }
  client.version.each_value { |version| raise "version #{version}" unless version.match?(/\A1\.6\.\d+\z/) }
  client.reset_stats
  client.stats.each_value { |stats| same('0', stats['get_hits'], 'get_hits after a reset') }
  client.flush
  same(nil, client.get('typed'), 'get after a flush')
  client.close
end

client = Dalli::Client.new(ADDRESSES, OPTIONS.merge(namespace: 'app', digest_class: Digest::MD5))
client.set('before', 1)
client.set('k' * 300, 'a long key')
same('a long key', client.get('k' * 300), 'a key that the client shortens')
puts 'restart'
$stdout.flush
$stdin.gets
100.times do
  break if client.set('again', 'x') && client.get('again') == 'x'
rescue Dalli::DalliError
  next
end
same('x', client.get('again'), 'get after a restart')
same(nil, client.get('before'), 'what was there before a restart')
puts 'ok'
