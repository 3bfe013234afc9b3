package bpf

//go:generate go tool -modfile=../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fno-strict-aliasing" -type index -type event -type reason -type exit relay relay.bpf.c
//go:generate go tool -modfile=../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fno-strict-aliasing" probe probe.bpf.c
//go:generate go tool -modfile=../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fno-strict-aliasing" -no-global-types -type harness measure measure.bpf.c
