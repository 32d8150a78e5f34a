/// Where a topology puts what is no result: a late event, one that it could not fold, the digests of its state. Each is
/// written by one topology alone, so that its events have places that are known before the log has them.
package struct SideTopics: Sendable, Equatable {
    package let late: String
    package let unfolded: String
    package let digests: String
    /// How far the topology is, for those that read what it writes. Nothing in it is derived from events alone, so no replay
    /// looks at it.
    package let progress: String
    /// The changelog of the tasks' state, on a log that several nodes share. Like progress, nothing that a replay looks at.
    package let state: String
    /// Those that hold no results.
    package var own: [String] { [progress, state] }

    /// Those of the workspace's own topology.
    package static let platform = SideTopics(
        late: "headrace.late", unfolded: "headrace.unfolded", digests: "headrace.digests",
        progress: "headrace.progress", state: "headrace.state")

    private init(late: String, unfolded: String, digests: String, progress: String, state: String) {
        self.late = late
        self.unfolded = unfolded
        self.digests = digests
        self.progress = progress
        self.state = state
    }

    /// Those of a topology of typed streams.
    package init(of topology: String) {
        self.init(
            late: topology + ".late", unfolded: topology + ".unfolded", digests: topology + ".digests",
            progress: topology + ".progress", state: topology + ".state")
    }

    /// What a replay emits again.
    package var all: [String] { [late, unfolded, digests] }
}
