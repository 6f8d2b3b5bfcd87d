-- TimescaleDB: what a fleet of agents says, fed by Telegraf (telegraf.conf) or any subscriber.
-- Without the extension the tables work in plain PostgreSQL; leave out the calls of timescaledb functions.
CREATE EXTENSION IF NOT EXISTS timescaledb;

CREATE TABLE IF NOT EXISTS score (
    time       timestamptz NOT NULL,
    agent      text        NOT NULL,
    machine    text        NOT NULL,
    state      text        NOT NULL,
    score      double precision,          -- -log10 p; NULL = not assessed
    score_limit double precision,
    level_dbfs double precision,
    operating  text NOT NULL DEFAULT '',
    reason     text NOT NULL DEFAULT ''
);
SELECT create_hypertable('score', 'time', chunk_time_interval => INTERVAL '1 day', if_not_exists => true);
CREATE INDEX IF NOT EXISTS score_machine ON score (agent, machine, time DESC);
ALTER TABLE score SET (timescaledb.compress, timescaledb.compress_segmentby = 'agent, machine');
SELECT add_compression_policy('score', INTERVAL '7 days', if_not_exists => true);
SELECT add_retention_policy('score', INTERVAL '400 days', if_not_exists => true);

-- Alarm events are few and are kept for ever. An event may be delivered twice: INSERT ... ON CONFLICT (id) DO NOTHING.
CREATE TABLE IF NOT EXISTS event (
    id         text PRIMARY KEY,
    time       timestamptz NOT NULL,
    agent      text NOT NULL,
    machine    text NOT NULL,
    alarm_id   text NOT NULL,
    event_type text NOT NULL,
    level      text NOT NULL,
    score      double precision,
    reason     text NOT NULL DEFAULT '',
    by         text NOT NULL DEFAULT '',
    comment    text NOT NULL DEFAULT '',
    baseline   text NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS event_machine ON event (agent, machine, time DESC);

CREATE TABLE IF NOT EXISTS health (
    time              timestamptz NOT NULL,
    agent             text NOT NULL,
    machine           text NOT NULL,
    status            text NOT NULL,      -- NAMUR NE 107
    reasons           text NOT NULL DEFAULT '',
    lag_s             double precision,
    outbox            integer,
    windows_dropped   bigint
);
SELECT create_hypertable('health', 'time', chunk_time_interval => INTERVAL '7 days', if_not_exists => true);
SELECT add_retention_policy('health', INTERVAL '90 days', if_not_exists => true);

-- One row per machine and hour, for dashboards over months.
CREATE MATERIALIZED VIEW IF NOT EXISTS score_hourly WITH (timescaledb.continuous) AS
SELECT time_bucket('1 hour', time) AS hour, agent, machine,
       max(score) AS highest, avg(score) AS mean, count(*) AS windows,
       count(*) FILTER (WHERE state = 'not_assessable') AS not_assessable
FROM score GROUP BY hour, agent, machine WITH NO DATA;
SELECT add_continuous_aggregate_policy('score_hourly', start_offset => INTERVAL '3 days',
       end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '1 hour', if_not_exists => true);
