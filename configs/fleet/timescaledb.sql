-- TimescaleDB: retention and compression for the tables of postgresql.sql, which is run first. Not run by our tests: the
-- extension is in neither Debian nor a package index that they use; postgresql.sql is.
CREATE EXTENSION IF NOT EXISTS timescaledb;

SELECT create_hypertable('score', 'time', chunk_time_interval => INTERVAL '1 day', if_not_exists => true);
ALTER TABLE score SET (timescaledb.compress, timescaledb.compress_segmentby = 'agent, machine');
SELECT add_compression_policy('score', INTERVAL '7 days', if_not_exists => true);
SELECT add_retention_policy('score', INTERVAL '400 days', if_not_exists => true);

SELECT create_hypertable('health', 'time', chunk_time_interval => INTERVAL '7 days', if_not_exists => true);
SELECT add_retention_policy('health', INTERVAL '90 days', if_not_exists => true);

-- The same columns as the plain view has, kept up to date every hour.
DROP VIEW IF EXISTS score_hourly;
CREATE MATERIALIZED VIEW IF NOT EXISTS score_hourly WITH (timescaledb.continuous) AS
SELECT time_bucket('1 hour', time) AS hour, agent, machine,
       max(score) AS highest, avg(score) AS mean, count(*) AS windows,
       count(*) FILTER (WHERE state = 'not_assessable') AS not_assessable
FROM score GROUP BY hour, agent, machine WITH NO DATA;
SELECT add_continuous_aggregate_policy('score_hourly', start_offset => INTERVAL '3 days',
       end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '1 hour', if_not_exists => true);
