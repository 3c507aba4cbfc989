package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"quorate/fsm/command"
)

// formatVersion is the newest format of a data directory that this version writes and reads.
const formatVersion = 1

// Names in a data directory.
const (
	lockFile   = "lock"
	serverFile = "server.json"
	peersFile  = "peers.json"
	raftDir    = "raft"
	boltFile   = "log.db"
	markFile   = "mark"
	snapDir    = "snapshots" // the name is raft.FileSnapshotStore's
)

// snapshotsKept is how many snapshots stay on disk; one older than the newest, in case that one is damaged.
const snapshotsKept = 2

// serverJSON is server.json.
type serverJSON struct {
	Format      int            `json:"format"`
	ServerID    command.NodeID `json:"server_id"`
	ClusterID   string         `json:"cluster_id"`
	Name        string         `json:"name"`
	Incarnation uint64         `json:"incarnation"`
	// CRC is the CRC32C of the other fields, so that a changed digit is not taken for another server.
	CRC uint32 `json:"crc"`
}

func (s serverJSON) sum() uint32 {
	text := fmt.Sprintf("%d\n%s\n%s\n%s\n%d", s.Format, s.ServerID, s.ClusterID, s.Name, s.Incarnation)
	return crc32.Checksum([]byte(text), castagnoli)
}

// Open opens the data directory dir, or makes it. The error is a *RefusedError when the directory must not be used.
// Opening counts as a start: the incarnation is raised. Whoever asks for it by Options.FreeBytes nil gets the free space
// of the directory's file system.
func Open(dir string, opt Options) (*Storage, error) {
	opt.fill()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, raftDir), 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := openLocked(dir, opt)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	inner := s.closer
	closed := make(chan struct{}, 1)
	s.closer = func() error {
		select {
		case closed <- struct{}{}:
			return errors.Join(inner(), lock.Close())
		default:
			return nil
		}
	}
	return s, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(&RefusedError{Dir: dir, Seen: "another process uses it", Err: err, Keep: true}, f.Close())
	}
	return f, nil
}

func openLocked(dir string, opt Options) (*Storage, error) {
	id, fresh, err := readServer(dir, opt)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := initRaft(dir); err != nil {
			return nil, err
		}
	}
	s, err := openRaft(dir, opt)
	if err != nil {
		return nil, err
	}
	if opt.FreeBytes == nil {
		s.freed = func() (uint64, error) { return freeBytes(dir) }
	}
	s.save = func(id Identity) error { return writeServer(dir, id) }
	id.Incarnation++
	if opt.Name != "" {
		id.Name = opt.Name
	}
	if opt.ClusterID != "" {
		id.ClusterID = opt.ClusterID
	}
	if _, err := s.update(func(to *Identity) { *to = id }); err != nil {
		return nil, errors.Join(fmt.Errorf("store start counter: %w", err), s.Close())
	}
	return s, nil
}

// readServer reads server.json. Without one the directory must be empty, or hold no more than a first start that was
// cut short: server.json is written last.
func readServer(dir string, opt Options) (id Identity, fresh bool, err error) {
	data, err := os.ReadFile(filepath.Join(dir, serverFile))
	if errors.Is(err, errNotExist) {
		if seen := leftovers(dir); seen != "" {
			return Identity{}, false, &RefusedError{Dir: dir, Seen: "server.json is missing, and there is " + seen}
		}
		return Identity{ServerID: newServerID(), Name: opt.Name, ClusterID: opt.ClusterID}, true, nil
	}
	if err != nil {
		return Identity{}, false, fmt.Errorf("read server.json: %w", err)
	}
	var f serverJSON
	if err := json.Unmarshal(data, &f); err != nil {
		return Identity{}, false, &RefusedError{Dir: dir, Seen: "server.json is damaged", Err: err}
	}
	if f.Format > formatVersion {
		return Identity{}, false, &RefusedError{
			Dir: dir, Keep: true,
			Seen: fmt.Sprintf("it has format %d, and this version knows up to %d: start it with the newer version", f.Format, formatVersion),
		}
	}
	if f.CRC != f.sum() || f.ServerID == "" {
		return Identity{}, false, &RefusedError{Dir: dir, Seen: "server.json is damaged: its checksum does not match"}
	}
	if opt.ClusterID != "" && f.ClusterID != "" && opt.ClusterID != f.ClusterID {
		return Identity{}, false, &RefusedError{Dir: dir, Seen: fmt.Sprintf("it belongs to cluster %s, and %s was asked for", f.ClusterID, opt.ClusterID)}
	}
	return Identity{ServerID: f.ServerID, ClusterID: f.ClusterID, Name: f.Name, Incarnation: f.Incarnation}, false, nil
}

// leftovers names what a directory without server.json holds that a first start cut short does not explain.
func leftovers(dir string) string {
	if slot, err := openFileSlots(filepath.Join(dir, raftDir, markFile)); err == nil {
		m, err := openMark(slot)
		_ = slot.close()
		if err == nil && m.load() != (state{}) {
			return fmt.Sprintf("a log with entries up to %d", m.load().index)
		}
	}
	if list, err := os.ReadDir(filepath.Join(dir, raftDir, snapDir)); err == nil && len(list) > 0 {
		return "a snapshot"
	}
	if _, err := os.Stat(filepath.Join(dir, peersFile)); err == nil {
		return "a peers.json"
	}
	return ""
}

// initRaft makes an empty log and mark, over what a first start cut short may have left.
func initRaft(dir string) error {
	base := filepath.Join(dir, raftDir)
	if err := os.Remove(filepath.Join(base, boltFile)); err != nil && !errors.Is(err, errNotExist) {
		return fmt.Errorf("make raft log: %w", err)
	}
	slots, err := createFileSlots(filepath.Join(base, markFile))
	if err != nil {
		return fmt.Errorf("make mark: %w", err)
	}
	if _, err := createMark(slots); err != nil {
		return errors.Join(fmt.Errorf("make mark: %w", err), slots.close())
	}
	if err := slots.close(); err != nil {
		return fmt.Errorf("make mark: %w", err)
	}
	bolt, err := openBolt(filepath.Join(base, boltFile), false)
	if err != nil {
		return fmt.Errorf("make raft log: %w", err)
	}
	if err := bolt.Close(); err != nil {
		return fmt.Errorf("make raft log: %w", err)
	}
	return errors.Join(syncDir(base), syncDir(dir))
}

// openRaft opens and audits log, mark, snapshots and book.
func openRaft(dir string, opt Options) (s *Storage, err error) {
	refuse := func(seen string, err error) (*Storage, error) {
		return nil, &RefusedError{Dir: dir, Seen: seen, Err: err}
	}
	base := filepath.Join(dir, raftDir)
	slots, err := openFileSlots(filepath.Join(base, markFile))
	if err != nil {
		return refuse("the mark of what was acknowledged is missing", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, slots.close())
		}
	}()
	m, err := openMark(slots)
	if err != nil {
		return refuse("the mark of what was acknowledged is damaged", err)
	}
	snaps, err := openSnapshots(base, opt.Logger)
	if err != nil {
		return nil, err
	}
	if err := walk(filepath.Join(base, boltFile)); err != nil {
		return refuse("the raft log is damaged", err)
	}
	bolt, err := openBolt(filepath.Join(base, boltFile), false)
	if err != nil {
		return refuse("the raft log cannot be opened", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, bolt.Close())
		}
	}()
	if s, err = assemble(bolt, bolt, snaps, m, opt); err != nil {
		return refuse("what it holds is less than this server has promised", err)
	}
	if s.Book, err = readBook(dir); err != nil {
		return refuse("what it knew of its peers is damaged", err)
	}
	s.dir, s.freed = dir, opt.FreeBytes
	s.closer = func() error { return errors.Join(s.Book.Flush(), bolt.Close(), slots.close()) }
	return s, nil
}

func openSnapshots(base string, logger *slog.Logger) (raft.SnapshotStore, error) {
	stale, err := filepath.Glob(filepath.Join(base, snapDir, "*.tmp"))
	if err != nil {
		return nil, fmt.Errorf("look for stale snapshots: %w", err)
	}
	for _, path := range stale {
		logger.LogAttrs(context.Background(), slog.LevelInfo, "unfinished snapshot deleted", slog.String("path", path))
		if err := os.RemoveAll(path); err != nil {
			return nil, fmt.Errorf("delete stale snapshot: %w", err)
		}
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(base, snapshotsKept, hclog.NewNullLogger())
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return snaps, nil
}

func openBolt(path string, readOnly bool) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
		Timeout: lockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, ReadOnly: readOnly,
		InitialMmapSize: 1 << 30, // address space only: growing the map waits for readers
	}})
}

// walk reads every page that is in use, before anything may write. bbolt panics on a damaged page, and a file cut
// short is a memory fault; both become errors here.
func walk(path string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("page of %s cannot be read: %v", filepath.Base(path), r)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			last := []byte(nil)
			return b.ForEach(func(k, v []byte) error {
				if bytes.Compare(k, last) <= 0 && last != nil {
					return fmt.Errorf("keys are out of order at %x", k)
				}
				last = append(last[:0], k...)
				crc32.Update(0, castagnoli, v) // touch the value's pages
				return nil
			})
		})
	})
}

func readBook(dir string) (*Book, error) {
	path := filepath.Join(dir, peersFile)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, errNotExist) {
		return nil, err
	}
	return openBook(data, func(b []byte) error { return replaceFile(path, b) })
}

func writeServer(dir string, id Identity) error {
	f := serverJSON{Format: formatVersion, ServerID: id.ServerID, ClusterID: id.ClusterID, Name: id.Name, Incarnation: id.Incarnation}
	f.CRC = f.sum()
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode server.json: %w", err)
	}
	return replaceFile(filepath.Join(dir, serverFile), append(data, '\n'))
}

// replaceFile replaces a file as a whole: durable content first, then the name, then the directory.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// newServerID draws 16 hexadecimal digits.
func newServerID() command.NodeID {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process itself
	return command.NodeID(strings.ToLower(hex.EncodeToString(b[:])))
}

// lockWait bounds the wait for bbolt's own lock, which only our own process could hold.
const lockWait = 5 * time.Second

var errNotExist = fs.ErrNotExist
