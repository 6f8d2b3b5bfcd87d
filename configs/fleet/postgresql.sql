-- PostgreSQL: what a fleet of agents says, fed by Telegraf (telegraf.conf) or any subscriber: columns are called as the
-- fields of the messages are (docs/mqtt.md), so that this inserts one:
--     INSERT INTO event SELECT * FROM json_populate_record(NULL::event, '{"schema": "asd/event/1", ...}');
-- With the extension TimescaleDB run timescaledb.sql afterwards.

CREATE TABLE IF NOT EXISTS score (
    id          text        NOT NULL,
    time        timestamptz NOT NULL,      -- end of the window
    agent       text        NOT NULL,
    machine     text        NOT NULL,
    state       text        NOT NULL,
    score       double precision,          -- -log10 p; NULL = not assessed
    score_limit double precision,
    level_dbfs  double precision,          -- NULL = digital silence
    operating   text        NOT NULL,
    reason      text        NOT NULL,
    baseline    text        NOT NULL
);
CREATE INDEX IF NOT EXISTS score_machine ON score (agent, machine, time DESC);

-- Alarm events are few and are kept for ever. One may be delivered twice: ask the view below.
CREATE TABLE IF NOT EXISTS event (
    id         text        NOT NULL,
    time       timestamptz NOT NULL,
    agent      text        NOT NULL,
    machine    text        NOT NULL,
    alarm_id   text        NOT NULL,
    event_type text        NOT NULL,
    level      text        NOT NULL,
    score      double precision,
    reason     text        NOT NULL,
    by         text        NOT NULL,
    comment    text        NOT NULL,
    baseline   text        NOT NULL
);
CREATE INDEX IF NOT EXISTS event_machine ON event (agent, machine, time DESC);
CREATE INDEX IF NOT EXISTS event_id ON event (id);
CREATE OR REPLACE VIEW event_once AS SELECT DISTINCT ON (id) * FROM event;

CREATE TABLE IF NOT EXISTS health (
    id              text        NOT NULL,
    time            timestamptz NOT NULL,
    agent           text        NOT NULL,
    machine         text        NOT NULL,
    status          text        NOT NULL,  -- NAMUR NE 107
    lag_s           double precision,
    outbox          integer     NOT NULL,
    windows_dropped bigint      NOT NULL,
    level_dbfs      double precision,
    baseline        text        NOT NULL
);
CREATE INDEX IF NOT EXISTS health_machine ON health (agent, machine, time DESC);

-- One row per machine and hour, for dashboards over months.
CREATE OR REPLACE VIEW score_hourly AS
SELECT date_trunc('hour', time) AS hour, agent, machine,
       max(score) AS highest, avg(score) AS mean, count(*) AS windows,
       count(*) FILTER (WHERE state = 'not_assessable') AS not_assessable
FROM score GROUP BY hour, agent, machine;
