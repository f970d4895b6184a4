// Package journal keeps what a driver program did, as the program itself knows it.
//
// It owns the markers in the statements' texts, the lines of the journal, and the text form of values.
package journal

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// Journal is the journal of one program, for all of its sessions.
type Journal struct {
	name    string
	file    *os.File
	numbers map[string]int
}

// Claim is what the client knows of one execution. What is nil it does not know.
type Claim struct {
	Rows, Affected, Copied *int
	SQLState               string
	Params                 []any
	// NoParams says that nothing is claimed of the parameters.
	NoParams bool
}

type line struct {
	Driver   string     `json:"d"`
	Number   int        `json:"j"`
	PID      uint32     `json:"pid"`
	Rows     *int       `json:"rows"`
	Affected *int       `json:"affected"`
	SQLState *string    `json:"sqlstate"`
	Copied   *int       `json:"copy_bytes"`
	Params   *[]*string `json:"params,omitempty"`
}

var marker = regexp.MustCompile(`/\* d=\S+ j=(\d+) \*/`)

// Open opens the journal that the environment names.
func Open(name string) *Journal {
	file, err := os.OpenFile(os.Getenv("PGW_JOURNAL"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	Must(err)
	return &Journal{name: name, file: file, numbers: map[string]int{}}
}

// Rounds is how often the program repeats its repertoire.
func Rounds() int {
	rounds, err := strconv.Atoi(os.Getenv("PGW_ROUNDS"))
	if err != nil {
		return 1
	}
	return rounds
}

// Mark gives each empty comment in a text its marker. Equal texts keep equal numbers, in every round.
func (j *Journal) Mark(text string) string {
	pieces := strings.Split(text, "/**/")
	Expect("a place for the marker", len(pieces) > 1, true)
	marked := pieces[0]
	for index, piece := range pieces[1:] {
		key := fmt.Sprint(index, " ", text)
		if j.numbers[key] == 0 {
			j.numbers[key] = len(j.numbers) + 1
		}
		marked += fmt.Sprintf("/* d=%s j=%d */%s", j.name, j.numbers[key], piece)
	}
	return marked
}

// Line writes one execution of the first marked statement of a text.
func (j *Journal) Line(marked string, pid uint32, claim Claim) {
	number, err := strconv.Atoi(marker.FindStringSubmatch(marked)[1])
	Must(err)
	entry := line{Driver: j.name, Number: number, PID: pid, Rows: claim.Rows, Affected: claim.Affected, Copied: claim.Copied}
	if claim.SQLState != "" {
		entry.SQLState = &claim.SQLState
	}
	if !claim.NoParams {
		params := make([]*string, 0, len(claim.Params))
		for _, value := range claim.Params {
			params = append(params, shown(value))
		}
		entry.Params = &params
	}
	bytes, err := json.Marshal(entry)
	Must(err)
	_, err = j.file.Write(append(bytes, '\n'))
	Must(err)
}

// Parts cuts a marked string of several statements behind each `;`; strings hold no quoted ones.
func Parts(marked string) []string {
	return strings.Split(marked, ";")
}

// N is a number that is known.
func N(number int) *int { return &number }

func shown(value any) *string {
	var text string
	switch value := value.(type) {
	case nil:
		return nil
	case bool:
		text = "f"
		if value {
			text = "t"
		}
	case []byte:
		text = `\x` + hex.EncodeToString(value)
	case []int32:
		text = "{" + strings.Trim(strings.ReplaceAll(fmt.Sprint(value), " ", ","), "[]") + "}"
	default:
		text = fmt.Sprint(value)
	}
	return &text
}

// Expect ends the program if the driver did not do what the program is here to exercise.
func Expect[T comparable](what string, got, wanted T) {
	if got != wanted {
		fmt.Fprintf(os.Stderr, "%.100s: expected %v, got %v\n", what, wanted, got)
		os.Exit(1)
	}
}

// Must ends the program on an error.
func Must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		panic(err)
	}
}
