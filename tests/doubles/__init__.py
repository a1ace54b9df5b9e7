"""Doubles of the closed APIs: one small server that speaks OpenAI Chat Completions, OpenAI Responses, Anthropic Messages and
Gemini generateContent, with scripted faults. README.md says how to use it."""
