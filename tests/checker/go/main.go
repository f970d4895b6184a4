// Command checker reads a log as it lies on disk by packages that have never heard of pgwitness: golang.org/x/mod/sumdb/note and
// tlog, which the Go checksum database is read with, and github.com/transparency-dev/formats/note for cosignatures.
//
//	checker DIR [WITNESS-KEY…]
//
// Checked are the checkpoint's signature, every tile, every entry against its leaf, and proofs. All that is ours here is where
// the files are: C2SP tlog-tiles leaves out the tile's height, and names bundles of entries.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type folder string

func (f folder) Height() int                             { return 8 }
func (f folder) SaveTiles(tiles []tlog.Tile, _ [][]byte) {}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := f.read(strings.Replace(tile.Path(), "tile/8/", "tile/", 1), tile.W*tlog.HashSize)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// A full tile may have taken the place of a partial one; its beginning is the same.
func (f folder) read(path string, bytes int) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(string(f), path))
	if full, _, partial := strings.Cut(path, ".p/"); os.IsNotExist(err) && partial {
		data, err = os.ReadFile(filepath.Join(string(f), full))
	}
	if err == nil && len(data) < bytes {
		err = fmt.Errorf("%s is too short", path)
	}
	if err != nil || bytes == 0 {
		return data, err
	}
	return data[:bytes], nil
}

func (f folder) entries(size int64) ([][]byte, error) {
	var all [][]byte
	for n := int64(0); n*256 < size; n++ {
		width := min(256, size-n*256)
		tile := tlog.Tile{H: 8, L: 0, N: n, W: int(width)}
		path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
		bundle, err := f.read(path, 0)
		if err != nil {
			return nil, err
		}
		for range width {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return nil, fmt.Errorf("%s is too short", path)
			}
			length := 2 + int(binary.BigEndian.Uint16(bundle))
			all = append(all, bundle[2:length])
			bundle = bundle[length:]
		}
	}
	return all, nil
}

func (f folder) open(name, key string, witnesses []string) (tlog.Tree, int, error) {
	var tree tlog.Tree
	signed, err := os.ReadFile(filepath.Join(string(f), name))
	if err != nil {
		return tree, 0, err
	}
	log, err := note.NewVerifier(key)
	if err != nil {
		return tree, 0, err
	}
	known := []note.Verifier{log}
	for _, key := range witnesses {
		witness, err := cosignature.NewVerifierForCosignatureV1(key)
		if err != nil {
			return tree, 0, err
		}
		known = append(known, witness)
	}
	opened, err := note.Open(signed, note.VerifierList(known...))
	if err != nil {
		return tree, 0, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 3 || lines[0] != log.Name() {
		return tree, 0, fmt.Errorf("%s is not of %s", name, log.Name())
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, 0, err
	}
	hash, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || copy(tree.Hash[:], hash) != tlog.HashSize {
		return tree, 0, fmt.Errorf("%s: no root", name)
	}
	return tree, len(opened.Sigs) - 1, nil
}

func check(f folder, witnesses []string) (string, error) {
	var origin struct {
		Key string `json:"verifier_key"`
	}
	text, err := os.ReadFile(filepath.Join(string(f), "origin"))
	if err == nil {
		err = json.Unmarshal(text, &origin)
	}
	if err != nil {
		return "", err
	}
	tree, _, err := f.open("checkpoint", origin.Key, nil)
	if err != nil {
		return "", err
	}
	reader := tlog.TileHashReader(tree, f)
	if tree.N > 0 {
		if root, err := tlog.TreeHash(tree.N, reader); err != nil || root != tree.Hash {
			return "", fmt.Errorf("the tiles make the root %v, %v", root, err)
		}
	}
	entries, err := f.entries(tree.N)
	if err != nil {
		return "", err
	}
	for at, entry := range entries {
		hash, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(at))})
		if err != nil || hash[0] != tlog.RecordHash(entry) {
			return "", fmt.Errorf("entry %d is not its leaf: %v", at, err)
		}
		if at%97 != 0 && at != len(entries)-1 {
			continue
		}
		proof, err := tlog.ProveRecord(tree.N, int64(at), reader)
		if err == nil {
			err = tlog.CheckRecord(proof, tree.N, tree.Hash, int64(at), tlog.RecordHash(entry))
		}
		if err != nil {
			return "", fmt.Errorf("entry %d is not proven: %v", at, err)
		}
	}
	cosigned := 0
	if len(witnesses) > 0 {
		var old tlog.Tree
		if old, cosigned, err = f.open("cosigned", origin.Key, witnesses); err != nil {
			return "", err
		}
		if old.N > 0 {
			proof, err := tlog.ProveTree(tree.N, old.N, reader)
			if err == nil {
				err = tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash)
			}
			if err != nil {
				return "", fmt.Errorf("the cosigned checkpoint is not of this tree: %v", err)
			}
		}
	}
	return fmt.Sprintf("%s: %d entries, %d cosignatures", origin.Key, tree.N, cosigned), nil
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "checker DIR [WITNESS-KEY…]")
		os.Exit(2)
	}
	said, err := check(folder(os.Args[1]), os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "WRONG:", err)
		os.Exit(1)
	}
	fmt.Println("OK:", said)
}
