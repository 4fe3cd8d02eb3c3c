"""Side-by-side measurements: `make bench`, or `make bench ONLY=preprocess_vs_tutorial`.

Each measures our side and another one alternately in one run and gives the ratio of their medians. The other side is
written here, as fast as its way of working allows. `reports/bench.json` keeps the last figures. Real photographs are
read from `CAPTIONING_SHARED` (by default `shared` beside the checkout); a measurement that lacks them is left out.
Run on an idle machine: everything takes about half an hour on two cores.
"""
