"""The page that a run ends with; its charts are drawn without torch."""
