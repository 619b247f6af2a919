// The connection of the checkout: plain, or with TLS and credentials if SENTINEL_TLS_CA is set. Reads the environment
// and the files that it names.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// region connect

// bearerToken reads the token for each call, so that a replaced file is used at once.
type bearerToken struct{}

func (bearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token := os.Getenv("SENTINEL_TOKEN")
	if path := os.Getenv("SENTINEL_TOKEN_FILE"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		token = strings.TrimSpace(string(text))
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (bearerToken) RequireTransportSecurity() bool { return true }

// transport is plain, or TLS with the CAs and the client certificate that the environment names.
func transport() (credentials.TransportCredentials, error) {
	ca := os.Getenv("SENTINEL_TLS_CA")
	if ca == "" {
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s contains no certificate", ca)
	}
	if path := os.Getenv("SENTINEL_CLIENT_CERT"); path != "" {
		certificate, err := tls.LoadX509KeyPair(path, os.Getenv("SENTINEL_CLIENT_KEY"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return credentials.NewTLS(config), nil
}

// connect makes one connection for the whole process: it is safe to share, and reconnects automatically.
func connect(address string) (*grpc.ClientConn, error) {
	transport, err := transport()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
	}
	hasToken := os.Getenv("SENTINEL_TOKEN_FILE") != "" || os.Getenv("SENTINEL_TOKEN") != ""
	if hasToken && os.Getenv("SENTINEL_TLS_CA") != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearerToken{}))
	}
	return grpc.NewClient(address, options...)
}

// endregion connect
