/*
 * pyslurm 25.11 on Slurm 26.05, where a job is named by a slurm_step_id_t and no longer by its number. Slurm's header
 * brings wrappers that still take the number, for those who ask for them; two other names have to be given here.
 */
#ifndef SLURM_BACKWARD_COMPAT
#define SLURM_BACKWARD_COMPAT 1
#endif
#include_next <slurm/slurm.h>
#ifndef SLURM_ENERGY_PYSLURM_HEADERS
#define SLURM_ENERGY_PYSLURM_HEADERS
/* Was renamed. */
#define slurm_free_ctl_conf slurm_free_conf
/* Is gone; pyslurm only lists it as a constant, so any number that Slurm never returns will do. */
#define ESLURM_ERROR_ON_DESC_TO_RECORD_COPY 9999
#endif
