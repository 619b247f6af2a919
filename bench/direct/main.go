// The peer without a service: goroutines that call two small scripts on Redis through go-redis, one call after another,
// as a library inside each checkout service does. Prints one line of JSON; latencies in microseconds.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed reserve.lua
var reserveSource string

//go:embed commit.lua
var commitSource string

var (
	address = flag.String("address", "127.0.0.1:6379", "host and port of Redis")
	prefix  = flag.String("prefix", "direct", "what the keys of this run begin with")
	callers = flag.Int("callers", 512, "goroutines")
	pool    = flag.Int("pool", 0, "connections; 0: as go-redis has it, ten for each processor")
	length  = flag.Duration("length", 3*time.Second, "length of the run")
	sell    = flag.Bool("sell", false, "commit each hold; an answer is then a reserve and its commit")
)

type result struct {
	Answers int     `json:"answers"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	P999    float64 `json:"p999"`
}

func main() {
	flag.Parse()
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: *address, PoolSize: *pool})
	defer client.Close()
	reserve, commit := redis.NewScript(reserveSource), redis.NewScript(commitSource)
	for _, script := range []*redis.Script{reserve, commit} {
		if err := script.Load(ctx, client).Err(); err != nil {
			log.Fatal(err)
		}
	}
	stock := "{" + *prefix + "}:stock"
	if err := client.Set(ctx, stock, 1_000_000_000, 0).Err(); err != nil {
		log.Fatal(err)
	}

	var done sync.WaitGroup
	latencies := make([][]float64, *callers)
	start := time.Now()
	end := start.Add(*length)
	for i := range latencies {
		done.Add(1)
		go func(mine *[]float64, name string) {
			defer done.Done()
			for n := 0; ; n++ {
				sentAt := time.Now()
				if sentAt.After(end) {
					return
				}
				hold := name + strconv.Itoa(n)
				if taken, err := reserve.Run(ctx, client, []string{stock, hold}, 1, 3600).Int(); err != nil || taken != 1 {
					log.Fatal("reserve: ", taken, " ", err)
				}
				if *sell {
					if gone, err := commit.Run(ctx, client, []string{hold}).Int(); err != nil || gone != 1 {
						log.Fatal("commit: ", gone, " ", err)
					}
				}
				*mine = append(*mine, float64(time.Since(sentAt).Microseconds()))
			}
		}(&latencies[i], fmt.Sprintf("{%s}:hold:%d:", *prefix, i))
	}
	done.Wait()
	seconds := time.Since(start).Seconds()

	var all []float64
	for _, mine := range latencies {
		all = append(all, mine...)
	}
	sort.Float64s(all)
	at := func(quantile float64) float64 { return all[int(quantile*float64(len(all)-1))] }
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	out := result{len(all), seconds, cpu, at(0.5), at(0.99), at(0.999)}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		log.Fatal(err)
	}
}
