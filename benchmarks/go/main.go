// The part of benchmarks/jetstream.py that nats.go takes: one measurement per run, printed as one line of JSON.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const patience = time.Minute

type job struct {
	kind, url, stream, consumer, subject, ca string
	count, size, window                      int
	body                                     []byte
	connection                               *nats.Conn
	jet                                      jetstream.JetStream
}

type result struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
}

func main() {
	var j job
	flag.StringVar(&j.kind, "kind", "", "what to measure")
	flag.StringVar(&j.url, "url", nats.DefaultURL, "server")
	flag.StringVar(&j.stream, "stream", "S", "stream")
	flag.StringVar(&j.consumer, "consumer", "c", "durable consumer, there already")
	flag.StringVar(&j.subject, "subject", "s.a", "subject")
	flag.StringVar(&j.ca, "ca", "", "certificate to trust: TLS")
	flag.IntVar(&j.count, "count", 1000, "messages")
	flag.IntVar(&j.size, "size", 100, "bytes of a body")
	flag.IntVar(&j.window, "window", 1000, "outstanding publishes, or messages of a pull")
	flag.Parse()
	kinds := map[string]func(context.Context) (result, error){
		"publish_pipelined": j.publishPipelined,
		"publish_sync":      j.publishSync,
		"consume_ack":       j.consumeAck,
		"fetch_ack":         j.fetchAck,
		"ordered_read":      j.orderedRead,
		"core_publish":      j.corePublish,
		"core_pubsub":       j.corePubSub,
	}
	run, known := kinds[j.kind]
	if !known {
		log.Fatalf("unknown -kind %q", j.kind)
	}
	if err := j.open(); err != nil {
		log.Fatal(err)
	}
	defer j.connection.Close()
	background, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := run(background)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}

func (j *job) open() (err error) {
	options := []nats.Option{}
	if j.ca != "" {
		options = append(options, nats.RootCAs(j.ca), nats.Secure())
	}
	if j.connection, err = nats.Connect(j.url, options...); err != nil {
		return err
	}
	j.jet, err = jetstream.New(j.connection,
		jetstream.WithPublishAsyncMaxPending(j.window), jetstream.WithDefaultTimeout(patience))
	j.body = bytes.Repeat([]byte("x"), j.size)
	return err
}

// measured gives wall seconds and CPU seconds (user and system, all threads) of the work.
func measured(work func() error) (result, error) {
	wall, before := time.Now(), cpu()
	err := work()
	return result{time.Since(wall).Seconds(), cpu() - before}, err
}

func cpu() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return seconds(used.Utime) + seconds(used.Stime)
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

func (j *job) publishPipelined(context.Context) (result, error) {
	futures := make([]jetstream.PubAckFuture, 0, j.count)
	return measured(func() error {
		for range j.count {
			future, err := j.jet.PublishAsync(j.subject, j.body, jetstream.WithStallWait(patience))
			if err != nil {
				return err
			}
			futures = append(futures, future)
		}
		for _, future := range futures {
			select {
			case <-future.Ok():
			case err := <-future.Err():
				return err
			}
		}
		return nil
	})
}

func (j *job) publishSync(background context.Context) (result, error) {
	return measured(func() error {
		for range j.count {
			if _, err := j.jet.Publish(background, j.subject, j.body); err != nil {
				return err
			}
		}
		return nil
	})
}

func (j *job) consumeAck(background context.Context) (result, error) {
	consumer, err := j.jet.Consumer(background, j.stream, j.consumer)
	if err != nil {
		return result{}, err
	}
	return measured(func() error {
		messages, err := consumer.Messages(jetstream.PullMaxMessages(j.window))
		if err != nil {
			return err
		}
		defer messages.Stop()
		for range j.count {
			message, err := messages.Next()
			if err != nil {
				return err
			}
			if err := message.Ack(); err != nil {
				return err
			}
		}
		return j.connection.Flush()
	})
}

func (j *job) fetchAck(background context.Context) (result, error) {
	consumer, err := j.jet.Consumer(background, j.stream, j.consumer)
	if err != nil {
		return result{}, err
	}
	return measured(func() error {
		for got := 0; got < j.count; {
			batch, err := consumer.Fetch(min(j.window, j.count-got))
			if err != nil {
				return err
			}
			for message := range batch.Messages() {
				if err := message.Ack(); err != nil {
					return err
				}
				got++
			}
			if err := batch.Error(); err != nil {
				return err
			}
		}
		return j.connection.Flush()
	})
}

func (j *job) orderedRead(background context.Context) (result, error) {
	consumer, err := j.jet.OrderedConsumer(background, j.stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return result{}, err
	}
	return measured(func() error {
		messages, err := consumer.Messages(jetstream.PullMaxMessages(j.window))
		if err != nil {
			return err
		}
		defer messages.Stop()
		for range j.count {
			if _, err := messages.Next(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (j *job) corePublish(context.Context) (result, error) {
	return measured(func() error {
		for range j.count {
			if err := j.connection.Publish("core.a", j.body); err != nil {
				return err
			}
		}
		return j.connection.Flush()
	})
}

func (j *job) corePubSub(background context.Context) (result, error) {
	got, done := 0, make(chan struct{})
	subscription, err := j.connection.Subscribe("core.a", func(*nats.Msg) {
		if got++; got == j.count {
			close(done)
		}
	})
	if err != nil {
		return result{}, err
	}
	if err := subscription.SetPendingLimits(-1, -1); err != nil {
		return result{}, err
	}
	return measured(func() error {
		for range j.count {
			if err := j.connection.Publish("core.a", j.body); err != nil {
				return err
			}
		}
		select {
		case <-done:
			return nil
		case <-background.Done():
			return fmt.Errorf("%d of %d came back", got, j.count)
		}
	})
}
