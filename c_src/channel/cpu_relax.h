/* The processor's hint that a loop waits for another thread.  Plain C. */
#ifndef BEAMLOOP_CPU_RELAX_H
#define BEAMLOOP_CPU_RELAX_H

#if defined(__x86_64__) || defined(__i386__)
#define cpu_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define cpu_relax() __asm__ volatile("yield")
#else
#define cpu_relax() ((void)0)
#endif

#endif
