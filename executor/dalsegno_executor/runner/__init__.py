"""The side of an executor that runs user code: loads it, runs steps and flow bodies. No gRPC in here."""
