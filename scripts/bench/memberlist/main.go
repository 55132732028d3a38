// One memberlist node for scripts/bench/membership: tells what it sees, with the time, as a JSON object a line.
//
// It speaks as the bench's meshpeer agent does, so that one set of eyes measures both. Commands come as lines:
// "go" joins through the seed, "value TEXT" changes this node's metadata; others are for the other side.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

type sight struct {
	Time float64 `json:"t"`
	Seen string  `json:"seen"`
}

// witness counts living members and writes every change; memberlist may call it from several goroutines.
type witness struct {
	lock   sync.Mutex
	living int
	gone   map[string]bool
	out    *json.Encoder
}

func (w *witness) say(format string, values ...interface{}) {
	now := float64(time.Now().UnixNano()) / 1e9
	if err := w.out.Encode(sight{now, fmt.Sprintf(format, values...)}); err != nil {
		os.Exit(1)
	}
}

// tell is say for whoever does not hold the lock, which also keeps lines whole.
func (w *witness) tell(text string) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.say(text)
}

func (w *witness) NotifyJoin(node *memberlist.Node) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.living++
	w.say("alive %d", w.living)
	if w.gone[node.Name] {
		delete(w.gone, node.Name)
		w.say("back %s", node.Name)
	}
}

func (w *witness) NotifyLeave(node *memberlist.Node) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.living--
	w.gone[node.Name] = true
	w.say("dead %s", node.Name)
}

func (w *witness) NotifyUpdate(node *memberlist.Node) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.say("value %s %s", node.Name, node.Meta)
}

// value is this node's metadata, the one thing of a Delegate that is wanted here.
type value struct {
	lock sync.Mutex
	text []byte
}

func (v *value) set(text string) {
	v.lock.Lock()
	defer v.lock.Unlock()
	v.text = []byte(text)
}

func (v *value) NodeMeta(int) []byte {
	v.lock.Lock()
	defer v.lock.Unlock()
	return v.text
}

func (v *value) NotifyMsg([]byte)                {}
func (v *value) GetBroadcasts(int, int) [][]byte { return nil }
func (v *value) LocalState(bool) []byte          { return nil }
func (v *value) MergeRemoteState([]byte, bool)   {}

func main() {
	name := flag.String("name", "", "this node's name")
	port := flag.Int("port", 0, "port of 127.0.0.1")
	seed := flag.String("seed", "", "HOST:PORT to join through; empty for the first")
	flag.Parse()

	eyes := &witness{gone: map[string]bool{}, out: json.NewEncoder(os.Stdout)}
	own := &value{}
	config := memberlist.DefaultLANConfig()
	config.Name = *name
	config.BindAddr, config.BindPort = "127.0.0.1", *port
	config.AdvertiseAddr, config.AdvertisePort = "127.0.0.1", *port
	config.Events, config.Delegate = eyes, own
	config.LogOutput = io.Discard
	list, err := memberlist.Create(config)
	if err != nil {
		log.Fatal(err)
	}
	eyes.tell("enrolled")

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 1 && words[0] == "go":
			if *seed != "" {
				if _, err := list.Join([]string{*seed}); err != nil {
					log.Fatal(err)
				}
			}
			eyes.tell("up")
		case len(words) == 2 && words[0] == "value":
			own.set(words[1])
			if err := list.UpdateNode(10 * time.Second); err != nil {
				log.Print(err)
			}
		}
	}
}
