package bpf

// Spilled registers do not share stack slots, because without CAP_PERFMON the verifier lets nothing but a pointer overwrite a pointer.

//go:generate go tool -modfile=../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fno-strict-aliasing -mllvm -no-stack-slot-sharing" -type abi -type index_value -type action -type accept_kind -type record_flag -type event_kind -type reason -type exit -type event relay relay.bpf.c
//go:generate go tool -modfile=../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fno-strict-aliasing -mllvm -no-stack-slot-sharing" probe probe.bpf.c
//go:generate go tool -modfile=../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -mcpu=v3 -fno-strict-aliasing -mllvm -no-stack-slot-sharing" -no-global-types measure measure.bpf.c
