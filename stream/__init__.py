"""The streaming half of the product: demand events in, forecasts and alerts out.

The folders, in the order of the data:

    kafka       fetches batches from Kafka and sends records to it
    decoding    turns bytes into columns, or refuses a record with a reason
    partition   counts the events of one partition: watermark, duplicates, open and closed buckets
    state       the store: its port, the Redis implementation, keys and stored layouts
    ingest      drives the four above: assignment, batches, flushes, roll-ups
    serving     forecasts the horizon after each closed bucket, with the champion or the fallback
    scoring     compares forecasts with the actuals: scores, calibration, drift
    sinks       encodes the records of the output topics, and writes the read side
    features    definitions of the features, packed rows, derived values
    registry    models, the champion, and announcements of a change

    worker      the main role: assembles all of the above
    router      the role before it: order documents to order lines

    readside    answers queries from the store
    api         the HTTP API over `readside`

    jobs        files, history, replay, simulation, archive, training, batch forecasts
    ops         a whole deployment on one machine: `up`, embedded services, `doctor`
    bench       the benchmarks of `surgecast bench`
    cli         the command line

    settings    every setting, read once
    processes   what any process needs: children, ports, signals, progress

Import from the modules; this package exports nothing.
"""
