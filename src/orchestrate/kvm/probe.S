# The boot sector that tells whether an accelerator runs guests; accel.py holds its bytes.
#
#   as -o probe.o probe.S && ld -Ttext 0x7c00 --oformat binary -o probe.img probe.o
#
# It does in order what any 64-bit kernel does first, and writes a letter to COM1 after each step:
#   R  real mode runs
#   L  long mode with paging runs
#   I  an exception is taken through the IDT and returns
#   K  CR3, CPUID and SWAPGS work, SYSRET reaches ring 3 and SYSCALL comes back
# and then ends QEMU through isa-debug-exit at port 0xf4.

        .set COM1, 0x3f8
        .set DEBUG_EXIT, 0xf4
        .set PML4, 0x1000
        .set PDPT, 0x2000
        .set PD, 0x3000
        .set IDT, 0x4000
        .set EFER, 0xc0000080
        .set STAR, 0xc0000081
        .set LSTAR, 0xc0000082

        .macro say letter
        movw $COM1, %dx
        movb $\letter, %al
        outb %al, %dx
        .endm

        .code16
        .globl _start
_start: cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        say 'R'

        movw $PML4, %di                 # tables and IDT start as zeros
        movw $0x2000, %cx
        xorw %ax, %ax
        rep stosw
        movw $PDPT + 7, PML4            # present, writable, for ring 3 too
        movw $PD + 7, PDPT
        movw $0x87, PD                  # one page of 2 MiB at 0
        lgdt gdtr
        movl $0x20, %eax                # PAE
        movl %eax, %cr4
        movl $PML4, %eax
        movl %eax, %cr3
        movl $EFER, %ecx
        rdmsr
        orl $0x101, %eax                # long mode, SYSCALL
        wrmsr
        movl $0x80000001, %eax          # paging, protected mode
        movl %eax, %cr0
        ljmp $0x08, $long_mode

        .code64
long_mode:
        movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %ss
        movl $0x7c00, %esp
        say 'L'

        movl $breakpoint, %eax          # gate of vector 3
        movw %ax, IDT + 0x30
        movw $0x08, IDT + 0x32
        movw $0x8e00, IDT + 0x34
        lidt idtr
        int3
        say 'I'

        movl $PML4, %eax
        movq %rax, %cr3
        xorl %eax, %eax
        cpuid
        swapgs
        movl $LSTAR, %ecx
        movl $system_call, %eax
        xorl %edx, %edx
        wrmsr
        decl %ecx                       # STAR: kernel's selectors from 0x08, ring 3's from 0x10
        xorl %eax, %eax
        movl $0x00100008, %edx
        wrmsr
        movl $ring3, %ecx
        movl $2, %r11d                  # flags: only the bit that is always set
        sysretq
ring3:  syscall
system_call:
        say 'K'
        movw $DEBUG_EXIT, %dx
        outb %al, %dx
1:      hlt
        jmp 1b
breakpoint:
        iretq

        .balign 8
gdt:    .quad 0
        .quad 0x00af9a000000ffff        # 0x08 kernel code, 64 bits
        .quad 0x00cf92000000ffff        # 0x10 kernel data
        .quad 0x00cff2000000ffff        # 0x18 ring 3 data
        .quad 0x00affa000000ffff        # 0x20 ring 3 code, 64 bits
gdtr:   .word gdtr - gdt - 1
        .long gdt
idtr:   .word 0x3f
        .quad IDT
