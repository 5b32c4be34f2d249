//! What every operator needs: a pool and a proven instruction set. In: threads and an [`Isa`]. Out: a [`Context`], and
//! the splitting of outputs into rectangles for the threads. How work is split never changes a result.

use crate::isa::{Isa, Proof};
use crate::matrix::MatMut;
use crate::pool::{Pool, SendPtr};

/// Values per thread below which another thread costs more than it saves, for operators that only stream over their
/// data. A hand-over takes about a microsecond, but values that move to another core's cache take ten: on two cores,
/// operators of 10 to 25 microseconds gained nothing from the second (a step of a net of width 64: 0.28 ms split, 0.19
/// ms not). A second thread is used from 1.5 grains on: the output product of a net of width 128 has that many, and
/// took half the time on two.
const GRAIN: usize = 1 << 16;

/// Where operators run: a thread pool and an instruction set that is known to be present.
pub struct Context {
    pool: Pool,
    proof: Proof,
    grain: usize,
    /// Threads take columns wherever they can.
    #[cfg(test)]
    columns: bool,
}

impl Context {
    /// A context of `threads` threads (the caller included) on `isa`.
    ///
    /// # Errors
    /// This CPU lacks `isa`, and the text lists what it has; or the operating system refuses a thread.
    pub fn new(threads: usize, isa: Isa) -> Result<Context, String> {
        Isa::choose(Some(&isa.to_string()))?;
        let proof = Proof::of(isa).ok_or_else(|| format!("instruction set `{isa}` vanished"))?;
        let pool = Pool::new(threads)
            .map_err(|e| format!("cannot start {threads} compute threads: {e}\nhint: ask for fewer threads"))?;
        Ok(Context {
            pool,
            proof,
            grain: GRAIN,
            #[cfg(test)]
            columns: false,
        })
    }

    /// The thread pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The instruction set that the operators use.
    pub fn isa(&self) -> Isa {
        self.proof.isa()
    }

    pub(crate) fn proof(&self) -> Proof {
        self.proof
    }

    /// Threads among which `work` streamed values are worth splitting; see [`streamed`] for multiply-adds.
    pub(crate) fn parts(&self, work: usize) -> usize {
        self.pool.threads().min((work + self.grain / 2) / self.grain).max(1)
    }

    /// Units (of `all`) that one thread's chunk holds when `work` values are split among the threads; at least 1.
    pub(crate) fn chunk(&self, all: usize, work: usize) -> usize {
        all.div_ceil(self.parts(work)).max(1)
    }

    /// Cuts the matrix `out` (rows of `cols` values) into cells of at most `cell` = (rows, columns), and calls `f((row,
    /// column), block)` with each cell's first row and column, on `threads` threads at most.
    pub(crate) fn cells(
        &self,
        out: &mut [f32],
        cols: usize,
        cell: (usize, usize),
        threads: usize,
        f: impl Fn((usize, usize), MatMut<'_>) + Sync,
    ) {
        let rows = out.len().checked_div(cols).unwrap_or(0);
        assert_eq!(rows * cols, out.len(), "output is not whole rows of {cols}");
        let (cell_rows, cell_cols) = (cell.0.max(1), cell.1.max(1));
        let (down, across) = (rows.div_ceil(cell_rows), cols.div_ceil(cell_cols));
        let start = SendPtr(out.as_mut_ptr());
        self.pool.run_on(threads, down * across, &|i| {
            let (row, col) = (i / across * cell_rows, i % across * cell_cols);
            let (height, width) = (cell_rows.min(rows - row), cell_cols.min(cols - col));
            // SAFETY: the cell lies within `out`, cells do not overlap, and `out` is borrowed until `run` returns.
            let block = unsafe { MatMut::from_raw(start.get().add(row * cols + col), height, width, cols) };
            f((row, col), block);
        });
    }
}

/// Streamed values that cost as much as this many multiply-adds.
pub(crate) fn streamed(multiply_adds: usize) -> usize {
    multiply_adds / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What tests alone may choose.
    impl Context {
        /// Splits work as finely as the threads allow, so that small shapes are split too.
        pub(crate) fn with_grain(mut self, grain: usize) -> Context {
            self.grain = grain;
            self
        }

        /// Whether threads take columns of a product whatever it costs, so that small shapes are split that way too.
        pub(crate) fn columns(&self) -> bool {
            self.columns
        }

        pub(crate) fn by_columns(self, columns: bool) -> Context {
            Context { columns, ..self }
        }
    }

    #[test]
    fn cells_cover_the_matrix_once() {
        let ctx = Context::new(3, Isa::Scalar).expect("scalar is always there");
        for (rows, cols, cell) in [(5, 7, (2, 3)), (1, 9, (4, 4)), (6, 1, (1, 1)), (0, 3, (1, 1)), (3, 0, (1, 1))] {
            let mut out = vec![0.0; rows * cols];
            ctx.cells(&mut out, cols, cell, 3, |(row, col), mut block| {
                for i in 0..block.rows() {
                    for (j, x) in block.row(i).iter_mut().enumerate() {
                        *x += ((row + i) * cols + col + j + 1) as f32;
                    }
                }
            });
            assert!(out.iter().enumerate().all(|(i, x)| *x == (i + 1) as f32), "{out:?}");
        }
    }
}
