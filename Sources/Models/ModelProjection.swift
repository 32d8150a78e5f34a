import Base
import GRDB
import RecordFormat
import Streams

/// The table `models`: every registered model and what became of it.
package final class ModelProjection: Projection {
    package let name = "models"
    package let inputs = [ModelTopics.requested, ModelTopics.registered, ModelTopics.deployed, ModelTopics.rejected]

    package init() {}

    package func prepare(_ database: Database) throws {
        try database.execute(
            sql: """
                CREATE TABLE IF NOT EXISTS models(
                    model TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL, requested_at TEXT, cut TEXT,
                    request_position TEXT, causes TEXT, registered_position TEXT, deployed_at TEXT, deployed_position TEXT,
                    auc REAL, incumbent_auc REAL, log_loss REAL, rows INTEGER, dataset_digest TEXT, model_digest TEXT,
                    reason TEXT, PRIMARY KEY(model, version)
                ) STRICT, WITHOUT ROWID
                """)
    }

    package func apply(
        _ event: StoredEvent, topic: String, partition: Int, document: JSONDocument, _ database: Database
    ) throws {
        let data = try document.value()
        guard let model = data["model"]?.string, let version = data["version"]?.int else { return }
        let position = "\(topic)/\(partition)@\(event.offset)"
        try database.execute(
            sql: "INSERT OR IGNORE INTO models(model, version, state) VALUES(?, ?, 'requested')",
            arguments: [model, version])
        var columns: [(String, (any DatabaseValueConvertible)?)]
        switch topic {
        case ModelTopics.requested:
            columns = [
                ("requested_at", event.time.description), ("cut", data["cut"]?.string), ("request_position", position),
                ("causes", data["causes"]?.text),
            ]
        case ModelTopics.registered:
            let metrics = data["metrics"]
            columns = [
                ("registered_position", position), ("auc", metrics?["auc"]?.double),
                ("incumbent_auc", metrics?["incumbentAUC"]?.double), ("log_loss", metrics?["logLoss"]?.double),
                ("rows", data["dataset"]?["rows"]?.int), ("dataset_digest", data["dataset"]?["digest"]?.string),
                ("model_digest", data["artifact"]?["digest"]?.string),
            ]
            // Topics are read one after the other, so a later state may be known already.
            try database.execute(
                sql: "UPDATE models SET state = 'registered' WHERE model = ? AND version = ? AND state = 'requested'",
                arguments: [model, version])
        case ModelTopics.deployed:
            columns = [("state", "deployed"), ("deployed_at", event.time.description), ("deployed_position", position)]
        default: columns = [("state", "rejected"), ("reason", data["reason"]?.string)]
        }
        for (column, value) in columns {
            try database.execute(
                sql: "UPDATE models SET \(column) = ? WHERE model = ? AND version = ?",
                arguments: [value, model, version])
        }
    }
}
