package clustertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ipA, ipB = "10.0.0.1", "10.0.0.2"

// bubble runs f with a network in a bubble.
func bubble(t *testing.T, opt Options, f func(t *testing.T, n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(opt)
		defer n.Close()
		f(t, n)
	})
}

// connect returns both ends of a stream from b to a.
func connect(t *testing.T, n *Network) (dialled, accepted net.Conn) {
	t.Helper()
	l, err := n.Host(ipA).Listen(ipA + ":7946")
	if err != nil {
		t.Fatal(err)
	}
	dialled, err = n.Host(ipB).Dial(t.Context(), ipA+":7946")
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return dialled, accepted
}

func mustWrite(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

func TestBytesArriveInOrderAfterTheDelay(t *testing.T) {
	bubble(t, Options{Seed: 1, DelayMin: time.Millisecond, DelayMax: 20 * time.Millisecond}, func(t *testing.T, n *Network) {
		d, a := connect(t, n)
		start := time.Now()
		var want bytes.Buffer
		for i := range 100 {
			b := bytes.Repeat([]byte{byte(i)}, i)
			want.Write(b)
			if _, err := d.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(a)
		if err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("read %d of %d bytes, %v", len(got), want.Len(), err)
		}
		if took := time.Since(start); took < time.Millisecond || took > 20*time.Millisecond {
			t.Fatalf("took %v", took)
		}
	})
}

func TestACutStallsOneDirectionUntilItIsMended(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network) {
		d, a := connect(t, n)
		n.Cut(ipB, ipA)
		mustWrite(t, d, "stalled")
		mustWrite(t, a, "passes")
		mustRead(t, d, "passes")
		_ = a.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read over a cut: %v", err)
		}
		_ = a.SetReadDeadline(time.Time{})
		_ = d.Close()
		n.Mend(ipB, ipA)
		mustRead(t, a, "stalled")
		if _, err := a.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("end of stream: %v", err)
		}
	})
}

func TestALongCutResetsBothEnds(t *testing.T) {
	bubble(t, Options{ResetAfter: 30 * time.Second}, func(t *testing.T, n *Network) {
		d, a := connect(t, n)
		n.Cut(ipA, ipB)
		time.Sleep(29 * time.Second)
		n.Heal()
		time.Sleep(time.Minute) // the first cut must not count
		mustWrite(t, d, "x")
		mustRead(t, a, "x")
		n.Cut(ipA, ipB)
		start := time.Now()
		for _, c := range []net.Conn{d, a} {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Fatalf("read: %v", err)
			}
		}
		if took := time.Since(start); took != 30*time.Second {
			t.Fatalf("reset after %v", took)
		}
	})
}

func TestADialNeedsBothDirectionsAndWaits(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network) {
		l, err := n.Host(ipA).Listen(":7946")
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range [][2]string{{ipA, ipB}, {ipB, ipA}} {
			n.Cut(cut[0], cut[1])
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err = n.Host(ipB).Dial(ctx, ipA+":7946")
			cancel()
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Fatalf("dial over a cut: %v", err)
			}
			time.AfterFunc(time.Second, n.Heal)
			c, err := n.Host(ipB).Dial(t.Context(), ipA+":7946")
			if err != nil {
				t.Fatal(err)
			}
			accepted, _ := l.Accept()
			_, _ = c.Close(), accepted.Close()
		}
		if _, err := n.Host(ipB).Dial(t.Context(), ipA+":1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial to a closed port: %v", err)
		}
	})
}

func TestAWriterWaitsForASlowReaderAndHasADeadline(t *testing.T) {
	bubble(t, Options{BufferBytes: 10}, func(t *testing.T, n *Network) {
		d, a := connect(t, n)
		_ = d.SetWriteDeadline(time.Now().Add(time.Second))
		if k, err := d.Write(make([]byte, 25)); k != 10 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d, %v", k, err)
		}
		_ = d.SetWriteDeadline(time.Time{})
		go func() { _, _ = io.CopyN(io.Discard, a, 60) }()
		if k, err := d.Write(make([]byte, 50)); k != 50 || err != nil {
			t.Fatalf("wrote %d, %v", k, err)
		}
		synctest.Wait()
		go func() {
			time.Sleep(time.Second)
			_ = d.SetReadDeadline(time.Now())
		}()
		if _, err := d.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read ended by a deadline set meanwhile: %v", err)
		}
	})
}

func TestAKilledHostEndsItsStreamsAndItsHandleStaysDead(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network) {
		old := n.Host(ipA)
		d, a := connect(t, n)
		n.Kill(ipA)
		if _, err := d.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("peer reads %v", err)
		}
		mustWrite(t, d, "x")
		if _, err := d.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("peer writes: %v", err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("own write: %v", err)
		}
		if _, err := n.Host(ipB).Dial(t.Context(), ipA+":7946"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial: %v", err)
		}
		fresh := n.Restart(ipA)
		if _, err := old.Listen(":1"); !errors.Is(err, errDown) {
			t.Fatalf("listen on the dead handle: %v", err)
		}
		if _, err := old.Dial(t.Context(), ipB+":1"); !errors.Is(err, errDown) {
			t.Fatalf("dial from the dead handle: %v", err)
		}
		if l, err := fresh.Listen(":7946"); err != nil {
			t.Fatal(err)
		} else if _, err := n.Host(ipB).Dial(t.Context(), l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAHostWithoutPowerIsSilentUntilItIsStartedAgain(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network) {
		d, _ := connect(t, n)
		n.PowerOff(ipA)
		mustWrite(t, d, "into the void")
		_ = d.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := d.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host(ipB).Dial(ctx, ipA+":7946"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("dial: %v", err)
		}
		n.Restart(ipA)
		if _, err := d.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("write after the restart: %v", err)
		}
	})
}

func TestDatagramsAreDroppedNeverBlockedOn(t *testing.T) {
	bubble(t, Options{Seed: 3}, func(t *testing.T, n *Network) {
		a, err := n.Host(ipA).ListenPacket(ipA + ":7946")
		if err != nil {
			t.Fatal(err)
		}
		b, err := n.Host(ipB).ListenPacket(ipB + ":7946")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 * packetQueueMax {
			if _, err := b.WriteTo([]byte("x"), a.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		if got := drain(a); got != packetQueueMax {
			t.Fatalf("%d datagrams, want a full queue", got)
		}
		n.SetLoss(ipB, ipA, 0.5)
		for range 1000 {
			_, _ = b.WriteTo([]byte("x"), a.LocalAddr())
		}
		if got := drain(a); got < 400 || got > 600 {
			t.Fatalf("%d of 1000 datagrams at half loss", got)
		}
		n.SetLoss(ipB, ipA, 0)
		n.Cut(ipB, ipA)
		_, _ = b.WriteTo([]byte("x"), a.LocalAddr())
		n.Heal()
		n.SetDelay(ipB, ipA, time.Second, time.Second)
		_, _ = b.WriteTo([]byte("late"), a.LocalAddr())
		start := time.Now()
		buf := make([]byte, 10)
		k, from, err := a.ReadFrom(buf)
		if err != nil || string(buf[:k]) != "late" || from.String() != ipB+":7946" || time.Since(start) != time.Second {
			t.Fatalf("read %q from %v after %v, %v", buf[:k], from, time.Since(start), err)
		}
	})
}

// drain reads what is queued.
func drain(p net.PacketConn) int {
	_ = p.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer func() { _ = p.SetReadDeadline(time.Time{}) }()
	for n := 0; ; n++ {
		if _, _, err := p.ReadFrom(make([]byte, 10)); err != nil {
			return n
		}
	}
}

func TestClosedStreamsAreForgotten(t *testing.T) {
	bubble(t, Options{DelayMin: time.Millisecond, DelayMax: time.Millisecond}, func(t *testing.T, n *Network) {
		d, a := connect(t, n)
		mustWrite(t, d, "x")
		_, _ = d.Close(), a.Close()
		time.Sleep(time.Second)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.conns) != 0 {
			t.Fatalf("%d streams left", len(n.conns))
		}
	})
}

func TestALoopbackDialReachesTheHostItself(t *testing.T) {
	bubble(t, Options{DelayMin: time.Second, DelayMax: time.Second}, func(t *testing.T, n *Network) {
		l, err := n.Host(ipA).Listen(":0")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := n.Host(ipA).Dial(t.Context(), l.Addr().String()); err != nil || time.Since(start) != 0 {
			t.Fatalf("dial: %v after %v", err, time.Since(start))
		}
	})
}
