import Base
import Foundation

package enum NodeModule {}
/// Errors of the node.
package typealias NodeError = Failure<NodeModule>

/// What a node needs to know to start.
package struct NodeConfiguration: Sendable {
    package var dataDirectory: String
    /// Folder with the platform's topics.
    package var platformTopics: String
    /// Folder to apply before anything else; nil leaves the definitions as the log has them.
    package var workspace: String?
    package var connectors: [String] = []
    package var host = "127.0.0.1"
    /// 0 takes a free port.
    package var port = 8080
    /// Plays history no further than this, for tests and trials.
    package var until: String?
    /// How often state is checkpointed, in seconds.
    package var checkpointSeconds = 2.0

    /// Brokers (`host:port`) and a file of librdkafka's settings; nil takes what the data directory was made for.
    package var kafka: String?
    package var kafkaSettings: String?

    /// Topologies of typed streams that this program brings along.
    package var streams: [StreamTopology] = []

    /// Streams may be others than those in force of their names; nothing of such a one is brought into force.
    package var triesChanges = false

    /// The node folds a share of the program's streams beside a node that was started, and does nothing else.
    package var isWorker = false
    /// Where other nodes reach this one; nil takes the address that it listens on.
    package var advertised: String?
    /// Keep the state of tasks that other nodes have, so that one that comes goes on at once.
    package var keepsCopies = true

    /// Told what people should know while the node opens.
    package var announce: @Sendable (String) -> Void = { _ in }
    /// Folder of the keys under which personal fields are sealed; nil takes the one that the data directory remembers, or
    /// `keys` in it.
    package var keys: String?
    /// Begin with new keys where those that the log was sealed with are gone for good.
    package var newKeys = false

    package init(dataDirectory: String, platformTopics: String) {
        self.dataDirectory = dataDirectory
        self.platformTopics = platformTopics
    }

    package var logDirectory: String { dataDirectory + "/log" }
    /// Says where the keys are, when they are not in `keys`.
    package var keysFile: String { dataDirectory + "/keys.json" }
    package var stateFile: String { dataDirectory + "/state.sqlite" }
    /// State of the streams' tasks.
    package var streamsDirectory: String { dataDirectory + "/streams" }
    /// State of views that are folded beside the workspace.
    package var viewFoldsDirectory: String { dataDirectory + "/views" }
    package var viewsFile: String { dataDirectory + "/views.sqlite" }
    package var addressFile: String { dataDirectory + "/node.json" }
}
