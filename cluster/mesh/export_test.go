package mesh

import (
	"context"
	"net"
)

// DialForTest opens a proven mesh connection by hand.
func DialForTest(ctx context.Context, n Network, addr string, h Hello) (net.Conn, error) {
	conn, err := n.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(appendHello([]byte{protocolMesh}, h)); err != nil {
		return nil, err
	}
	_, err = readAnswer(conn)
	return conn, err
}
