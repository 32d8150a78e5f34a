import Base
import GRDB
import RecordFormat
import Streams

/// The tables `performance_days` (newest revision a day), `drift_days` (a row per feature) and `retrains`.
package final class MonitorProjection: Projection {
    package let name = "monitors"
    package let inputs = [MonitorTopics.performance, MonitorTopics.drift, MonitorTopics.triggered]

    package init() {}

    package func prepare(_ database: Database) throws {
        try database.execute(
            sql: """
                CREATE TABLE IF NOT EXISTS performance_days(
                    monitor TEXT NOT NULL, day TEXT NOT NULL, model TEXT NOT NULL, revision INTEGER NOT NULL,
                    questions INTEGER NOT NULL, predictions INTEGER NOT NULL, labels INTEGER NOT NULL, coverage REAL,
                    auc REAL, log_loss REAL, position TEXT NOT NULL, PRIMARY KEY(monitor, day)
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE IF NOT EXISTS drift_days(
                    monitor TEXT NOT NULL, day TEXT NOT NULL, feature TEXT NOT NULL, model TEXT NOT NULL,
                    version INTEGER NOT NULL, psi REAL, psi_limit REAL, position TEXT NOT NULL, PRIMARY KEY(monitor, day, feature)
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE IF NOT EXISTS retrains(
                    model TEXT NOT NULL, at TEXT NOT NULL, policy TEXT NOT NULL, causes TEXT NOT NULL, position TEXT NOT NULL,
                    PRIMARY KEY(model, at)
                ) STRICT, WITHOUT ROWID
                """)
    }

    package func apply(
        _ event: StoredEvent, topic: String, partition: Int, document: JSONDocument, _ database: Database
    ) throws {
        let data = try document.value()
        let position = "\(topic)/\(partition)@\(event.offset)"
        switch (topic, event.type) {
        case (MonitorTopics.performance, "performance.day"):
            try database.cachedStatement(
                sql: "INSERT OR REPLACE INTO performance_days VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            )
            .execute(arguments: [
                data["monitor"]?.string, data["day"]?.string, data["model"]?.string, data["revision"]?.int,
                data["questions"]?.int, data["predictions"]?.int, data["labels"]?.int, data["coverage"]?.double,
                data["auc"]?.double, data["logLoss"]?.double, position,
            ])
        case (MonitorTopics.drift, _):
            let put = try database.cachedStatement(
                sql: "INSERT OR REPLACE INTO drift_days VALUES(?, ?, ?, ?, ?, ?, ?, ?)")
            for feature in data["features"]?.array ?? [] {
                try put.execute(arguments: [
                    data["monitor"]?.string, data["day"]?.string, feature["feature"]?.string, data["model"]?.string,
                    data["version"]?.int, feature["psi"]?.double, feature["limit"]?.double, position,
                ])
            }
        case (MonitorTopics.triggered, _):
            try database.execute(
                sql: "INSERT OR REPLACE INTO retrains VALUES(?, ?, ?, ?, ?)",
                arguments: [
                    data["model"]?.string, data["at"]?.string, data["policy"]?.string, data["causes"]?.text, position,
                ])
        default: break
        }
    }
}
