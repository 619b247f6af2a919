// The package that protoc generates from proto/, as a module of the name in go_package. tests/polyglot/run generates it.
module github.com/inventory-sentinel/inventory-sentinel/gen/go

go 1.24.0

require (
	google.golang.org/grpc v1.80.0
	google.golang.org/protobuf v1.36.12
)
