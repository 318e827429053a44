// gomemcache, the client of most programs in Go: every command, a list of servers, many goroutines, a restart.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

func same(expected, got interface{}, what string) {
	if fmt.Sprint(expected) != fmt.Sprint(got) {
		fmt.Fprintf(os.Stderr, "%s: expected %.300v, got %.300v\n", what, expected, got)
		os.Exit(1)
	}
}

func connect(servers ...string) *memcache.Client {
	client := memcache.New(servers...)
	client.Timeout = 10 * time.Second
	client.MaxIdleConns = 10
	return client
}

func item(key, value string) *memcache.Item {
	return &memcache.Item{Key: key, Value: []byte(value), Expiration: 100}
}

func value(client *memcache.Client, key string) string {
	found, err := client.Get(key)
	if err != nil {
		return err.Error()
	}
	return string(found.Value)
}

const miss = "memcache: cache miss"

func commands(client *memcache.Client) {
	same(nil, client.Ping(), "ping")
	same(miss, value(client, "nothing"), "a miss")
	same(nil, client.Set(&memcache.Item{Key: "key", Value: []byte("value"), Flags: 1<<32 - 1}), "set")
	found, err := client.Get("key")
	same(nil, err, "get")
	same("value", string(found.Value), "a value")
	same(uint32(1<<32-1), found.Flags, "its flags")
	same(nil, client.Set(item("empty", "")), "set of nothing")
	same("", value(client, "empty"), "an empty value")
	same(nil, client.Set(item("bytes", "a\r\nEND\r\n\x00\xff")), "set of bytes")
	same("a\r\nEND\r\n\x00\xff", value(client, "bytes"), "bytes")

	same(memcache.ErrNotStored, client.Add(item("key", "x")), "add of what is there")
	same(nil, client.Add(item("new", "b")), "add")
	same(nil, client.Replace(item("new", "b")), "replace")
	same(memcache.ErrNotStored, client.Replace(item("nothing", "x")), "replace of nothing")
	same(nil, client.Append(item("new", "c")), "append")
	same(nil, client.Prepend(item("new", "a")), "prepend")
	same("abc", value(client, "new"), "what was joined")
	same(memcache.ErrNotStored, client.Append(item("nothing", "x")), "append to nothing")
	same(nil, client.Delete("new"), "delete")
	same(memcache.ErrCacheMiss, client.Delete("new"), "delete of nothing")

	mine, err := client.Get("key")
	same(nil, err, "get before cas")
	rival, _ := client.Get("key")
	mine.Value = []byte("mine")
	same(nil, client.CompareAndSwap(mine), "cas")
	rival.Value = []byte("late")
	same(memcache.ErrCASConflict, client.CompareAndSwap(rival), "cas, late")
	same("mine", value(client, "key"), "what cas wrote")
	gone, _ := client.Get("key")
	same(nil, client.Delete("key"), "delete before cas")
	same(memcache.ErrCacheMiss, client.CompareAndSwap(gone), "cas of nothing")

	same(nil, client.Set(item("counter", "10")), "set of a number")
	number, err := client.Increment("counter", 5)
	same("15 <nil>", fmt.Sprint(number, err), "increment")
	number, err = client.Decrement("counter", 50)
	same("0 <nil>", fmt.Sprint(number, err), "decrement below nothing")
	same(nil, client.Set(item("counter", "18446744073709551615")), "set of the largest number")
	number, err = client.Increment("counter", 1)
	same("0 <nil>", fmt.Sprint(number, err), "increment over the edge")
	_, err = client.Increment("nothing", 1)
	same(memcache.ErrCacheMiss, err, "increment of nothing")
	_, err = client.Increment("bytes", 1)
	if err == nil || !strings.Contains(err.Error(), "cannot increment or decrement non-numeric value") {
		same("an error", err, "increment of bytes")
	}

	now := int32(time.Now().Unix())
	for expiry, expected := range map[int32]string{
		0: "x", 100: "x", 30 * 86400: "x", now + 100: "x", now - 10: miss, -1: miss,
	} {
		same(nil, client.Set(&memcache.Item{Key: "timed", Value: []byte("x"), Expiration: expiry}), "set with expiry")
		same(expected, value(client, "timed"), fmt.Sprint("expiry ", expiry))
	}
	same(nil, client.Set(item("timed", "x")), "set")
	same(nil, client.Touch("timed", 100), "touch")
	same(nil, client.Touch("timed", -1), "touch with a time in the past")
	same(miss, value(client, "timed"), "what that left")
	same(memcache.ErrCacheMiss, client.Touch("nothing", 100), "touch of nothing")

	keys := []string{"nothing"}
	for i := 0; i < 300; i++ {
		key := fmt.Sprint("many-", i)
		same(nil, client.Set(item(key, key)), "set of many")
		keys = append(keys, key)
	}
	many, err := client.GetMulti(keys)
	same("300 <nil>", fmt.Sprint(len(many), err), "get of many")
	for key, found := range many {
		same(key, string(found.Value), "one of many")
	}

	blob := make([]byte, 900000)
	rand.New(rand.NewSource(1)).Read(blob)
	same(nil, client.Set(&memcache.Item{Key: "blob", Value: blob}), "set of a large value")
	found, err = client.Get("blob")
	same(nil, err, "get of a large value")
	same(true, bytes.Equal(blob, found.Value), "a large value")
	err = client.Set(&memcache.Item{Key: "huge", Value: append(blob, blob...)})
	same(true, err != nil && strings.Contains(err.Error(), "SERVER_ERROR object too large for cache"), fmt.Sprint(err))
	same(miss, value(client, "huge"), "what was too large")
	same(memcache.ErrMalformedKey, client.Set(item("two words", "x")), "a key of two words")
	same(nil, client.Set(item(strings.Repeat("k", 250), "x")), "a key of 250 bytes")
	same("x", value(client, strings.Repeat("k", 250)), "what is under it")
}

// Each goroutine adds to two counters: with the command, and with cas until no other goroutine has written meanwhile.
func together(client *memcache.Client) {
	same(nil, client.Set(item("sum", "0")), "set of a sum")
	same(nil, client.Set(item("swapped", "0")), "set of a sum")
	var group sync.WaitGroup
	for i := 0; i < 16; i++ {
		group.Add(1)
		go func(me int) {
			defer group.Done()
			for j := 0; j < 25; j++ {
				_, err := client.Increment("sum", 1)
				same(nil, err, "increment of a sum")
				for {
					found, err := client.Get("swapped")
					same(nil, err, "get of a sum")
					var sum int
					fmt.Sscan(string(found.Value), &sum)
					found.Value = []byte(fmt.Sprint(sum + 1))
					if err = client.CompareAndSwap(found); err == nil {
						break
					}
					same(memcache.ErrCASConflict, err, "cas of a sum")
				}
				key := fmt.Sprint("goroutine-", me)
				same(nil, client.Set(item(key, fmt.Sprint(j))), "set of a goroutine")
				same(fmt.Sprint(j), value(client, key), "get of a goroutine")
			}
		}(i)
	}
	group.Wait()
	same("400", value(client, "sum"), "the sum")
	same("400", value(client, "swapped"), "the sum by cas")
}

func main() {
	var servers []string
	for _, port := range os.Args[1:] {
		servers = append(servers, "127.0.0.1:"+port)
	}
	same(3, len(servers), "servers")
	for _, list := range [][]string{servers[:1], servers} {
		client := connect(list...)
		commands(client)
		together(client)
		same(nil, client.DeleteAll(), "delete of all")
		same(miss, value(client, "blob"), "get after a flush")
		same(nil, client.Set(item("again", "x")), "set after a flush")
		same(nil, client.FlushAll(), "flush")
		same(miss, value(client, "again"), "get after another flush")
	}

	client := connect(servers...)
	for i := 0; i < 30; i++ {
		same(nil, client.Set(item(fmt.Sprint("before-", i), "x")), "set before a restart")
	}
	fmt.Println("restart")
	bufio.NewReader(os.Stdin).ReadString('\n')
	for i := 0; i < 30; i++ {
		key, err := fmt.Sprint("before-", i), errors.New("not tried")
		// The client still has connections to the old servers.
		for attempt := 0; attempt < 100 && err != nil; attempt++ {
			if _, err = client.Get(key); err == memcache.ErrCacheMiss {
				err = client.Set(item(key, "again"))
			}
		}
		same("again", value(client, key), "what was set after a restart")
	}
	fmt.Println("ok")
}
