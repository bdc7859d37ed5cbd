"""The data flow without an orchestrator: one module is one stage is the tables it writes."""
